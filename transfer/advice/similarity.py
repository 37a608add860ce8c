"""Measure how similar images are to a network's pretraining data, without that data, by its norms and classifier.

Two measures that need no labels. A norm stores mean and variance of its inputs during pretraining, by channel: how far
are today's inputs from them? And does the original classifier predict different classes for different images, each with
confidence, or nearly the same uncertain prediction for all?
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import sqrt
from typing import Literal

import numpy as np

from transfer.advice.observe import NetworkObservations, NormStatistics
from transfer.advice.transferability.information import estimate_predicted_information

Kind = Literal["similar", "between", "different"]

# Score for each value of a measure, interpolated between these. Fitted to sets of known similarity with two ImageNet
# networks: photographs of objects and flowers, also in grey, are similar; the same blurred, shuffled or magnified, and
# digits, are between; steel surfaces, random phases, noise and single colours are different.
SCORES = (0.0, 1 / 3, 2 / 3, 1.0)
VARIETY_AT_SCORES = (0.0, 0.20, 0.38, 0.60)  # see `measure_predicted_variety`
DISTANCE_AT_SCORES = (0.80, 0.30, 0.12, 0.03)  # nats, interpolated by logarithm
MIN_VARIANCE = 1e-6  # a smaller one counts as this
MIN_NEIGHBOUR_LEAD = 0.05  # accuracy, and at least two standard deviations: an earlier stage is clearly better


@dataclass(frozen=True)
class Similarity:
    """How similar images are to the pretraining data, and by which measures."""

    score: float  # from 0, different, to 1, similar: the mean of the available measures
    kind: Kind  # by thirds of the score, corrected by `compare_stages`; "between" where there is no measure
    distance: dict[str, float]  # `measure_norm_distance` by stage, lowest first; empty without running statistics
    informed: float | None  # `measure_predicted_variety`; None without an original classifier
    pretraining: str = ""  # of a network to which the scale does not apply, in words; nothing is then claimed
    outdone: str | None = None  # an earlier stage whose features separate the classes clearly better than the last ones

    @property
    def known(self) -> bool:
        """Whether there is any measure, on a scale that applies to the network."""
        return not self.pretraining and (bool(self.distance) or self.informed is not None)


def compare_stages(similarity: Similarity, neighbours: Mapping[str, float], images: int) -> Similarity:
    """Return `similarity`, at most "between" where an earlier stage separates the classes better than the last one.

    On images like those of pretraining the last features separate classes best (Yosinski et al. 2014).
    `neighbours` are the accuracies of nearest neighbours by stage, lowest first, on this number of `images`.

    Examples
    --------
    >>> found = compare_stages(Similarity(0.8, "similar", {}, 0.5), {"stem": 0.5, "last": 0.4}, 1000)
    >>> found.kind, found.outdone
    ('between', 'stem')
    """
    best, last = max(neighbours, key=lambda stage: neighbours[stage]), list(neighbours)[-1]
    if neighbours[best] - neighbours[last] <= max(MIN_NEIGHBOUR_LEAD, 2 / sqrt(images)):
        return similarity
    return replace(similarity, kind="between" if similarity.kind == "similar" else similarity.kind, outdone=best)


def measure_similarity(observed: NetworkObservations) -> Similarity:
    """Return how similar the observed images are to the network's pretraining data.

    The scale is of networks pretrained on natural photographs. Nothing is claimed of any other: photographs are as near
    to a letters network, by its norms and its classifier, as to an ImageNet network.
    """
    distance = {stage: measure_norm_distance(norm) for stage, norm in observed.norms.items()}
    variety = None if observed.probabilities is None else measure_predicted_variety(observed.probabilities)
    return rate_similarity(distance, variety, observed.pretraining)


def rate_similarity(distance: Mapping[str, float], variety: float | None, pretraining: str = "") -> Similarity:
    """Return the similarity for the two measures, each where it is known: see :class:`Similarity`.

    Examples
    --------
    >>> rate_similarity({"last": 0.12}, 0.38).kind, rate_similarity({}, 0.1).kind, rate_similarity({}, None).kind
    ('similar', 'different', 'between')
    """
    scores = []
    if distance:
        last = max(list(distance.values())[-1], MIN_VARIANCE)
        scores.append(np.interp(-np.log(last), -np.log(DISTANCE_AT_SCORES), SCORES))
    if variety is not None:
        scores.append(np.interp(variety, VARIETY_AT_SCORES, SCORES))
    score = float(np.mean(scores)) if scores and not pretraining else 0.5
    return Similarity(score, classify_similarity(score), dict(distance), variety, pretraining)


def classify_similarity(score: float) -> Kind:
    """Return the kind for a score, by thirds.

    Examples
    --------
    >>> classify_similarity(0.2), classify_similarity(0.5), classify_similarity(0.9)
    ('different', 'between', 'similar')
    """
    return "different" if score < SCORES[1] else "between" if score < SCORES[2] else "similar"


def measure_norm_distance(norm: NormStatistics) -> float:
    """Return the median over channels of KL(N(m, v) || N(m0, v0)), in nats.

    m and v are mean and variance over all positions of all images, m0 and v0 the norm's running statistics. A median,
    as channels with almost no variance of their own can be any number of nats away.
    """
    mean = norm.mean.mean(0, dtype=float)
    var = np.maximum(norm.square.mean(0, dtype=float) - mean**2, MIN_VARIANCE)
    running_var = np.maximum(norm.running_var.astype(float), MIN_VARIANCE)
    divergence = np.log(running_var / var) + (var + (mean - norm.running_mean) ** 2) / running_var - 1
    return float(np.median(0.5 * divergence))


def measure_predicted_variety(probabilities: np.ndarray) -> float:
    """Return the mutual information of image and predicted original class, as a share of its maximum, from 0 to 1.

    The maximum is the entropy of the classes over all images, which makes sets of few and of many kinds comparable. See
    :func:`transfer.advice.transferability.information.estimate_predicted_information`.
    """
    information = estimate_predicted_information(probabilities)
    uncertainty = float(-(probabilities * np.log(np.maximum(probabilities, np.finfo(float).tiny))).sum(1).mean())
    return information / (information + uncertainty) if information else 0.0
