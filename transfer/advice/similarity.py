"""How similar images are to those that a network was pretrained on, without those: what its norms and classifier say.

Two measures that need no labels. A norm keeps mean and variance of what the pretraining images gave it, channel by
channel: how far is what these images give? And the original classifier: does it answer differently for different
images, surely each time, or much the same, unsurely, for all?
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import sqrt
from typing import Literal

import numpy as np

from transfer.advice.observe import Norm, Observations
from transfer.advice.transferability.information import predicted_information

Kind = Literal["similar", "between", "different"]

# Where a measure stands for 0, 1/3, 2/3 and 1. Read off sets of known kind with two ImageNet networks: photographs of
# objects and flowers, also grey ones, are to be similar; the same blurred, in pieces or magnified, and digits between;
# steel surfaces, random phases, noise and single colours different.
MARKS = (0.0, 1 / 3, 2 / 3, 1.0)
INFORMED = (0.0, 0.20, 0.38, 0.60)
APART = (0.80, 0.30, 0.12, 0.03)
LEAST = 1e-6  # a variance below is none
CLEAR = 0.05  # of neighbours' accuracy, and two standard deviations at least: an earlier stage is clearly better


@dataclass(frozen=True)
class Similarity:
    """How similar images are to the pretraining data, and what that is read off.

    Parameters
    ----------
    score : float
        0 different to 1 similar: the mean of the measures that there are.
    kind : {"similar", "between", "different"}
        By thirds of the score, less what :func:`outdone` takes off; "between" where there is no measure.
    distance : dict of str to float
        :func:`norm_distance` by stage, lowest first; empty for a network without running statistics.
    informed : float, optional
        The share of the variety of original classes that an image tells: :func:`informed`.
    outdone : str, optional
        The earlier stage whose features tell these images apart clearly better than the last ones: see :func:`outdone`.
    """

    score: float
    kind: Kind
    distance: dict[str, float]
    informed: float | None
    outdone: str | None = None

    @property
    def known(self) -> bool:
        """Whether there is any measure."""
        return bool(self.distance) or self.informed is not None


def outdone(alike: Similarity, neighbours: Mapping[str, float], images: int) -> Similarity:
    """Return `alike`, no longer as "similar" where an earlier stage outdoes the last one on the labels.

    What a network was pretrained on, and the like, its last features tell apart best (Yosinski et al. 2014).

    Parameters
    ----------
    neighbours : mapping of str to float
        Accuracy of the nearest neighbours by stage, lowest first.
    images : int
        That this was counted on.

    Examples
    --------
    >>> found = outdone(Similarity(0.8, "similar", {}, 0.5), {"stem": 0.5, "last": 0.4}, 1000)
    >>> found.kind, found.outdone
    ('between', 'stem')
    """
    best, last = max(neighbours, key=lambda stage: neighbours[stage]), list(neighbours)[-1]
    if neighbours[best] - neighbours[last] <= max(CLEAR, 2 / sqrt(images)):
        return alike
    return replace(alike, kind="between" if alike.kind == "similar" else alike.kind, outdone=best)


def similarity(seen: Observations) -> Similarity:
    """Return how similar the images of `seen` are to what the network was pretrained on."""
    distance = {stage: norm_distance(norm) for stage, norm in seen.norms.items()}
    told = None if seen.probabilities is None else informed(seen.probabilities)
    scores = []
    if distance:
        last = max(list(distance.values())[-1], LEAST)
        scores.append(np.interp(-np.log(last), -np.log(APART), MARKS))
    if told is not None:
        scores.append(np.interp(told, INFORMED, MARKS))
    score = float(np.mean(scores)) if scores else 0.5
    return Similarity(score, kind(score), distance, told)


def kind(score: float) -> Kind:
    """Return the third that a score is in.

    Examples
    --------
    >>> kind(0.2), kind(0.5), kind(0.9)
    ('different', 'between', 'similar')
    """
    return "different" if score < MARKS[1] else "between" if score < MARKS[2] else "similar"


def norm_distance(norm: Norm) -> float:
    """Return the median over channels of KL(N(m, v) || N(m0, v0)), in nats.

    m and v are mean and variance over all places of all images, m0 and v0 what the norm keeps. A median, since single
    channels with next to no variance of their own can be any number of nats away.
    """
    mean = norm.mean.mean(0, dtype=float)
    var = np.maximum(norm.square.mean(0, dtype=float) - mean**2, LEAST)
    kept = np.maximum(norm.running_var.astype(float), LEAST)
    return float(np.median(0.5 * (np.log(kept / var) + (var + (mean - norm.running_mean) ** 2) / kept - 1)))


def informed(probabilities: np.ndarray) -> float:
    """Return the share of the variety of original classes that an image tells, from 0 to 1.

    The mutual information of image and class over the entropy of the classes in all:
    `information.predicted_information` made comparable between sets of few and many kinds.
    """
    information = predicted_information(probabilities)
    unsure = float(-(probabilities * np.log(np.maximum(probabilities, np.finfo(float).tiny))).sum(1).mean())
    return information / (information + unsure) if information else 0.0
