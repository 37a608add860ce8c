"""What is measured before anything is trained: size, similarity, and how far frozen features carry."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import softmax

from transfer.advice.observe import Observations
from transfer.advice.similarity import Similarity, outdone, similarity
from transfer.advice.transferability.crossval import CrossValidation, cross_validate, score_held_out
from transfer.advice.transferability.folds import stratified_folds
from transfer.advice.transferability.hscore import hscore, most
from transfer.advice.transferability.leep import explained, leep, nce
from transfer.advice.transferability.logme import logme
from transfer.advice.transferability.neighbours import neighbour_accuracy
from transfer.advice.transferability.noise import LabelNoise, label_noise
from transfer.advice.transferability.size import SetSize
from transfer.backbones.variants import shares
from transfer.data.duplicates import Inspection, duplicates, merge_groups, near_duplicates
from transfer.data.table import ImageTable
from transfer.errors import TransferError
from transfer.freeze.plan import NEAR_BEST

ROWS, LABELS = 2500, 120_000  # images that frozen features are judged by, at most; and times the number of classes
ENOUGH = 300  # images to see how similar they are; without labels where there are fewer with
FOLDS = 5
FEWEST = 3  # labels of a class, for noise among them: a probe that has seen fewer is never confident of it
STEEPEST = 0.5  # power of a learning curve: a higher one is chance
NEAR, TRUNCATED = 0.1, 3  # see :func:`worth_a_probe`


@dataclass(frozen=True)
class Transferability:
    """How well the last features, and the original classes, fit the labels.

    Parameters
    ----------
    logme, hscore : float
        Of the last stage's features; hscore as a share of the most that it can be.
    leep, nce : float, optional
        Cross-fitted, as a share of the labels' entropy: of the original classifier's probabilities and of its answers.
    """

    logme: float
    hscore: float
    leep: float | None
    nce: float | None


@dataclass(frozen=True)
class Evidence:
    """All that advice stands on.

    Parameters
    ----------
    size : SetSize
        Of all images to learn from.
    similarity : Similarity
        Of the judged images, and of some without labels where these are few.
    probes : mapping of str to CrossValidation
        Linear probes on features that stay frozen, by policy: ``linear_probe``, ``truncate:k`` where worth it (see
        :func:`worth_a_probe`), ``head2toe``, and the mean of the best of these, ``stage_probes``.
    neighbours : mapping of str to float
        Leave-one-out accuracy of the 5 nearest neighbours by stage, lowest first.
    transferability : Transferability
    noise : LabelNoise
        Of classes with ``FEWEST`` labels or more; none where no probe tells labels at all.
    labels : ndarray of int64, shape (J,)
        Objects of the images that probes were judged by: of those to learn from ``ROWS`` at most, or fewer where there
        are many classes.
    widths : tuple of int
        Features of each stage, lowest first.
    slope : float
        By which power of the number of images a linear probe's errors became fewer at the last doubling of those
        judged; 0 where these are all.
    near_together : bool
        Whether near-duplicates were never in two folds.
    """

    size: SetSize
    similarity: Similarity
    probes: Mapping[str, CrossValidation]
    neighbours: Mapping[str, float]
    transferability: Transferability
    noise: LabelNoise
    labels: np.ndarray
    widths: tuple[int, ...]
    slope: float = 0.0
    near_together: bool = False

    @property
    def told(self) -> bool:
        """Whether any probe is surely better than always answering the commonest class."""
        return tells(self.probes, self.labels)

    @property
    def commonest(self) -> float:
        """The share of the images of the commonest class: what always answering that would get right."""
        return commonest(self.labels)

    @property
    def left(self) -> float:
        """The share of errors that is left when a probe learns from all images with labels, not the judged alone.

        By a power at each doubling that is half of the one before: see :func:`curve`. The sum of these is
        ``slope * (1 - 0.5**doublings)``.
        """
        judged = len(self.labels)
        return float(2 ** -(self.slope * (1 - judged / max(self.size.labelled, judged))))


def sample(table: ImageTable, learn: np.ndarray, others: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows to look at: of `learn` those with labels, every class in its share; of `others` as many as lack.

    Parameters
    ----------
    learn, others : ndarray of int64
        Rows whose labels may be used, and rows whose labels may not.

    Raises
    ------
    TransferError
        Labels of fewer than two classes.
    """
    labelled = learn[table.object[learn] >= 0]
    if len(classes := np.unique(table.object[labelled])) < 2:
        raise TransferError(
            f"advice needs labelled images of two classes or more to learn from; in train and val there are "
            f"{len(labelled)} labelled images, of {len(classes)} classes: label more, or name a policy"
        )
    rng = np.random.default_rng(seed)
    if len(labelled) > (most := max(min(ROWS, LABELS // len(classes)), FOLDS * len(classes))):
        order = rng.permutation(labelled)
        rank = np.empty(len(order))  # of an image within its class, as a fraction
        for c in np.unique(table.object[order]):
            here = np.flatnonzero(table.object[order] == c)
            rank[here] = (np.arange(len(here)) + 0.5) / len(here)
            rank[here[:FOLDS]] = np.arange(len(here[:FOLDS])) - FOLDS  # the rarest class, too, is in every fold
        labelled = np.sort(order[np.argsort(rank, kind="stable")[:most]])
    lacking = max(ENOUGH - len(labelled), 0)
    return labelled, np.sort(rng.permutation(others)[:lacking])


def gather(
    seen: Observations,
    table: ImageTable,
    inspection: Inspection,
    judged: int,
    size: SetSize,
    seed: int = 0,
    near_together: bool = False,
) -> Evidence:
    """Return the evidence of images that a network has observed.

    Parameters
    ----------
    seen : Observations
        Of the rows of `table`, of which `inspection` is.
    judged : int
        The first so many rows have labels that may be used: no others are looked at.
    size : SetSize
        Of all images with labels.
    seed : int
        Of the folds.
    near_together : bool
        Take near-duplicates for copies: never in two folds.
    """
    label, alike = table.object[:judged], similarity(seen)
    seen = seen.take(np.arange(judged))
    copies = duplicates(inspection)
    copies = (merge_groups([copies, near_duplicates(inspection)]) if near_together else copies)[:judged]
    own = np.array([group or f"\0{i}" for i, group in enumerate(table.group[:judged])])
    group = merge_groups([copies, np.unique(own, return_inverse=True)[1]])
    folds = stratified_folds(label, group, folds=FOLDS, seed=seed)
    stages = list(seen.features)
    near = {s: neighbour_accuracy(x, label, groups=group)["accuracy"] for s, x in seen.features.items()}
    probes = {"linear_probe": cross_validate(seen.features[stages[-1]], label, folds)}
    for drop in worth_a_probe(near):
        probes[f"truncate:{drop}"] = cross_validate(seen.features[stages[-1 - drop]], label, folds)
    stacked, blocks = stack_stages(seen.features)
    probes["head2toe"] = cross_validate(stacked, label, folds, blocks)
    probes["stage_probes"] = averaged(list(probes.values()), label)
    best = min(probes.values(), key=lambda probe: probe.loss)
    noise = np.where(np.bincount(label)[label] >= FEWEST, label, -1) if tells(probes, label) else np.full(judged, -1)
    first = np.unique(copies, return_index=True)[1]  # LogME counts a copy as further evidence
    last, original = seen.features[stages[-1]], seen.probabilities
    return Evidence(
        size,
        outdone(alike, near, judged),
        probes,
        near,
        Transferability(
            logme(last[first], label[first]),
            hscore(last[first], label[first]) / most(label[first], last.shape[1]),
            None if original is None else explained(leep(original, label, folds), label),
            None if original is None else explained(nce(original.argmax(1), label, folds), label),
        ),
        label_noise(best.probabilities, noise),
        label,
        tuple(x.shape[1] for x in seen.features.values()),
        curve(last, label, group, probes["linear_probe"], seed) if size.labelled > judged else 0.0,
        near_together,
    )


def commonest(labels: np.ndarray) -> float:
    """Return the share of the commonest of `labels`."""
    return float(np.bincount(labels).max() / len(labels))


def tells(probes: Mapping[str, CrossValidation], labels: np.ndarray) -> bool:
    """Return whether any of `probes` is surely better than always answering the commonest class."""
    return max(probe.interval[0] for probe in probes.values()) > commonest(labels)


def curve(features: np.ndarray, labels: np.ndarray, groups: np.ndarray, whole: CrossValidation, seed: int = 0) -> float:
    """Return by which power of the number of images errors became fewer, from those of a probe of half of the groups.

    Errors go with a power of the number of examples (Hestness et al. 2017, "Deep Learning Scaling is Predictable"), yet
    a probe's go with a lower one the more there are: on six sets and two networks, from 120 to 2,800 images, with about
    half of the power at each doubling. Classes of one image in the half say nothing; 0 where the half cannot be judged.
    """
    half = np.flatnonzero(stratified_folds(labels, groups, folds=2, seed=seed) == 0)
    both = np.bincount(labels[half], minlength=int(labels.max()) + 1) > 1
    if both.sum() < 2 or len(np.unique(groups[half])) < 2:
        return 0.0
    half = half[both[labels[half]]]
    fewer = cross_validate(features[half], labels[half], stratified_folds(labels[half], groups[half], seed=seed))
    wrong = (whole.predictions != labels)[both[labels]]
    errors = [max(error, 1 / len(labels)) for error in (1 - fewer.accuracy, float(wrong.mean()))]
    return float(np.clip(np.log(errors[0] / errors[1]) / np.log(len(wrong) / len(half)), 0.0, STEEPEST))


def averaged(probes: Sequence[CrossValidation], labels: np.ndarray) -> CrossValidation:
    """Return what those of `probes` that are near the best one say together, as the ``stage_probes`` policy does."""
    least = min(probe.loss for probe in probes)
    near = [probe for probe in probes if probe.loss <= NEAR_BEST * least]
    logs = np.mean([np.log(np.maximum(probe.probabilities, np.finfo(float).tiny)) for probe in near], 0)
    return score_held_out(softmax(logs, 1), labels, probes[0].folds)


def worth_a_probe(neighbours: Mapping[str, float]) -> list[int]:
    """Return how many stages to drop for each of the ``TRUNCATED`` best earlier stages that come near the best one.

    A probe takes seconds, neighbours a moment, and a stage whose neighbours are far worse has no better probe.

    Examples
    --------
    >>> worth_a_probe({"stem": 0.2, "layer1": 0.83, "layer2": 0.9, "layer3": 0.88})
    [1, 2]
    """
    known = list(neighbours.values())[::-1]
    near = [drop for drop in range(1, len(known)) if known[drop] > max(known) - NEAR]
    return sorted(sorted(near, key=lambda drop: -known[drop])[:TRUNCATED])


def stack_stages(features: Mapping[str, np.ndarray]) -> tuple[np.ndarray, list[tuple[slice, float]]]:
    """Return the features of all stages side by side, and the blocks by which ``head2toe`` scales them."""
    ends = np.cumsum([x.shape[1] for x in features.values()])
    blocks = [
        (slice(end - x.shape[1], end), share)
        for x, end, share in zip(features.values(), ends.tolist(), shares(len(features)), strict=True)
    ]
    return np.concatenate(list(features.values()), 1), blocks
