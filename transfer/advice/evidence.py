"""Evidence for advice, gathered without training: size, similarity, and the accuracy of probes on frozen features."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import softmax

from transfer.advice.observe import NetworkObservations
from transfer.advice.requirements import HEAD2TOE, LINEAR_PROBE, STAGE_PROBES
from transfer.advice.similarity import Similarity, compare_stages, measure_similarity
from transfer.advice.transferability.crossval import CrossValidation, cross_validate, score_held_out
from transfer.advice.transferability.folds import assign_folds
from transfer.advice.transferability.hscore import compute_max_hscore, hscore
from transfer.advice.transferability.leep import explain_entropy, leep, nce
from transfer.advice.transferability.logme import logme
from transfer.advice.transferability.neighbours import score_neighbours
from transfer.advice.transferability.noise import LabelNoise, find_label_noise
from transfer.advice.transferability.size import SetSize
from transfer.backbones.variants import split_variance
from transfer.data.duplicates import Inspection, group_duplicates, group_near_duplicates, merge_groups
from transfer.data.table import ImageTable
from transfer.errors import TransferError
from transfer.probes.stage_probes import NEAR_BEST

MAX_PROBE_IMAGES = 2500  # labelled images that probes are cross-validated on
MAX_PROBE_IMAGES_TIMES_CLASSES = 120_000
MIN_SIMILARITY_IMAGES = 300  # filled up with unlabelled images
FOLDS = 5
MIN_NOISE_LABELS = 3  # of a class: a probe trained on fewer is never confident of it
# Accuracy of the best probe from which on its suspects are worth a look. With 5 % of the labels wrong (README.md), 19 %
# of the suspects of probes below it (0.69, 0.59) were wrong labels, and 62 to 100 % of those of probes above it.
MIN_CHECKING_ACCURACY = 0.75
MAX_CURVE_POWER = 0.5  # of a learning curve; a steeper one is chance
MAX_NEIGHBOUR_LAG = 0.1  # accuracy by which an earlier stage's neighbours may lag behind the best and still be probed
MAX_TRUNCATED_PROBES = 3


@dataclass(frozen=True)
class TransferabilityScores:
    """How well the last features, and the original classes, fit the labels."""

    logme: float
    hscore: float | None  # as a share of its maximum; None where the distinct images are of one class
    leep: float | None  # cross-fitted, of the original classifier's probabilities, as a share of the labels' entropy
    nce: float | None  # the same of its predictions


@dataclass(frozen=True)
class AdviceEvidence:
    """All measurements that advice rests on."""

    size: SetSize  # of all training images
    similarity: Similarity  # of the cross-validated images, and of some without labels where these are few
    # Linear probes on frozen features, by policy: linear_probe, truncate:k for earlier stages with good neighbours (see
    # `choose_truncations`), head2toe, and the mean of the best of these, stage_probes.
    probes: Mapping[str, CrossValidation]
    neighbours: Mapping[str, float]  # leave-one-out accuracy of the 5 nearest neighbours by stage, lowest first
    transferability: TransferabilityScores
    noise: LabelNoise  # of classes with MIN_NOISE_LABELS labels or more; none where no probe can check labels
    labels: np.ndarray  # int64, shape (J,): objects of the cross-validated images, see `sample_rows`
    widths: tuple[int, ...]  # features of each stage, lowest first
    # Power of the number of images with which a linear probe's errors fell at the last doubling; 0 where all labelled
    # images are cross-validated.
    slope: float = 0.0
    near_together: bool = False  # whether near-duplicates always share a fold

    @property
    def predicts_labels(self) -> bool:
        """Whether any probe is significantly better than always predicting the commonest class."""
        return beats_majority(self.probes, self.labels)

    @property
    def can_check_labels(self) -> bool:
        """Whether the probe of least loss is correct often enough to find wrong labels."""
        return can_check_labels(self.probes)

    @property
    def majority_share(self) -> float:
        """Share of the commonest class: the accuracy of always predicting it."""
        return compute_majority_share(self.labels)

    @property
    def remaining_errors(self) -> float:
        """Share of a probe's errors that remains when it is trained on all labelled images, not only on the sample.

        The power halves at each doubling: see :func:`fit_learning_curve`. The sum of these powers is
        ``slope * (1 - 0.5**doublings)``.
        """
        sampled = len(self.labels)
        return float(2 ** -(self.slope * (1 - sampled / max(self.size.labelled, sampled))))


def sample_rows(
    table: ImageTable, train: np.ndarray, unlabelled: np.ndarray, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Return a sample of the labelled rows of `train`, stratified by class, and of `unlabelled` rows to fill it up.

    The labels of `train` may be used, those of `unlabelled` may not.

    Raises
    ------
    TransferError
        Labels of fewer than two classes.
    """
    labelled = train[table.object[train] >= 0]
    if len(classes := np.unique(table.object[labelled])) < 2:
        raise TransferError(
            f"advice needs labelled training images of two classes or more; train and val hold {len(labelled)} "
            f"labelled images of {len(classes)} classes: label more, or name a policy"
        )
    rng = np.random.default_rng(seed)
    count = max(min(MAX_PROBE_IMAGES, MAX_PROBE_IMAGES_TIMES_CLASSES // len(classes)), FOLDS * len(classes))
    if len(labelled) > count:
        order = rng.permutation(labelled)
        rank = np.empty(len(order))  # of an image within its class, as a fraction
        for c in np.unique(table.object[order]):
            members = np.flatnonzero(table.object[order] == c)
            rank[members] = (np.arange(len(members)) + 0.5) / len(members)
            rank[members[:FOLDS]] = np.arange(len(members[:FOLDS])) - FOLDS  # the rarest class, too, is in every fold
        labelled = np.sort(order[np.argsort(rank, kind="stable")[:count]])
    lacking = max(MIN_SIMILARITY_IMAGES - len(labelled), 0)
    return labelled, np.sort(rng.permutation(unlabelled)[:lacking])


def gather_evidence(
    observed: NetworkObservations,
    table: ImageTable,
    inspection: Inspection,
    labelled: int,
    size: SetSize,
    seed: int = 0,
    near_together: bool = False,
) -> AdviceEvidence:
    """Return the evidence of images that a network has observed.

    Parameters
    ----------
    observed, inspection
        Of the rows of `table`.
    labelled : int
        Number of rows, from the first, whose labels may be used. The other labels are never read.
    size : SetSize
        Of all training images.
    near_together : bool
        Treat near-duplicates as duplicates: always in one fold.
    """
    label, similarity = table.object[:labelled], measure_similarity(observed)
    observed = observed.take(np.arange(labelled))
    copies, group = (groups[:labelled] for groups in group_images(table, inspection, near_together))
    folds = assign_folds(label, group, folds=FOLDS, seed=seed)
    last = list(observed.features.values())[-1]
    neighbours = {s: score_neighbours(x, label, groups=group)["accuracy"] for s, x in observed.features.items()}
    probes = cross_validate_policies(observed.features, neighbours, label, folds)
    return AdviceEvidence(
        size,
        compare_stages(similarity, neighbours, labelled),
        probes,
        neighbours,
        _score_transferability(observed, label, folds, copies),
        _find_noise(probes, label),
        label,
        tuple(x.shape[1] for x in observed.features.values()),
        fit_learning_curve(last, label, group, probes[LINEAR_PROBE], seed) if size.labelled > labelled else 0.0,
        near_together,
    )


def group_images(table: ImageTable, inspection: Inspection, near_together: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return groups (N,) of duplicates, and of rows that share a fold: duplicates, or of one group of the table.

    With `near_together` near-duplicates count as duplicates.
    """
    copies = group_duplicates(inspection)
    if near_together:
        copies = merge_groups([copies, group_near_duplicates(inspection)])
    names = np.array([group or f"\0{i}" for i, group in enumerate(table.group)])  # "" is no group
    return copies, merge_groups([copies, np.unique(names, return_inverse=True)[1]])


def cross_validate_policies(
    features: Mapping[str, np.ndarray], neighbours: Mapping[str, float], labels: np.ndarray, folds: np.ndarray
) -> dict[str, CrossValidation]:
    """Return cross-validated probes by policy, on the features of each stage, lowest first."""
    stages = list(features.values())
    probes = {LINEAR_PROBE: cross_validate(stages[-1], labels, folds)}
    for dropped in choose_truncations(neighbours):
        probes[f"truncate:{dropped}"] = cross_validate(stages[-1 - dropped], labels, folds)
    stacked, blocks = stack_stages(features)
    probes[HEAD2TOE] = cross_validate(stacked, labels, folds, blocks)
    probes[STAGE_PROBES] = average_probes(list(probes.values()), labels)
    return probes


def compute_majority_share(labels: np.ndarray) -> float:
    """Return the share of the commonest of `labels`."""
    return float(np.bincount(labels).max() / len(labels))


def beats_majority(probes: Mapping[str, CrossValidation], labels: np.ndarray) -> bool:
    """Return whether any of `probes` is significantly better than always predicting the commonest class."""
    return max(probe.interval[0] for probe in probes.values()) > compute_majority_share(labels)


def can_check_labels(probes: Mapping[str, CrossValidation]) -> bool:
    """Return whether the one of `probes` with the least loss is correct often enough to find wrong labels."""
    return min(probes.values(), key=lambda probe: probe.loss).accuracy >= MIN_CHECKING_ACCURACY


def fit_learning_curve(
    features: np.ndarray, labels: np.ndarray, groups: np.ndarray, whole: CrossValidation, seed: int = 0
) -> float:
    """Return the power of the number of images with which a probe's errors fall, from half of the groups to all.

    Errors follow a power law of the number of examples (Hestness et al. 2017, "Deep Learning Scaling is Predictable"),
    but a probe's power falls: on six sets and two networks, from 120 to 2,800 images, it about halves at each doubling.
    Classes with one image in the half are left out; 0 where the half cannot be cross-validated.
    """
    half = np.flatnonzero(assign_folds(labels, groups, folds=2, seed=seed) == 0)
    several = np.bincount(labels[half], minlength=int(labels.max()) + 1) > 1
    if several.sum() < 2 or len(np.unique(groups[half])) < 2:
        return 0.0
    half = half[several[labels[half]]]
    fewer = cross_validate(features[half], labels[half], assign_folds(labels[half], groups[half], seed=seed))
    wrong = (whole.predictions != labels)[several[labels]]
    errors = [max(error, 1 / len(labels)) for error in (1 - fewer.accuracy, float(wrong.mean()))]
    return float(np.clip(np.log(errors[0] / errors[1]) / np.log(len(wrong) / len(half)), 0.0, MAX_CURVE_POWER))


def average_probes(probes: Sequence[CrossValidation], labels: np.ndarray) -> CrossValidation:
    """Return the mean of those of `probes` that are near the best one, as the ``stage_probes`` policy forms it."""
    least = min(probe.loss for probe in probes)
    near = [probe for probe in probes if probe.loss <= NEAR_BEST * least]
    logs = np.mean([np.log(np.maximum(probe.probabilities, np.finfo(float).tiny)) for probe in near], 0)
    return score_held_out(softmax(logs, 1), labels, probes[0].folds)


def choose_truncations(neighbours: Mapping[str, float]) -> list[int]:
    """Return the numbers of stages to drop for probes on earlier stages: the best few with neighbours near the best.

    Neighbours are faster than a probe, and a stage whose neighbours are far worse has no better probe.

    Examples
    --------
    >>> choose_truncations({"stem": 0.2, "layer1": 0.83, "layer2": 0.9, "layer3": 0.88})
    [1, 2]
    """
    known = list(neighbours.values())[::-1]
    near = [dropped for dropped in range(1, len(known)) if known[dropped] > max(known) - MAX_NEIGHBOUR_LAG]
    return sorted(sorted(near, key=lambda dropped: -known[dropped])[:MAX_TRUNCATED_PROBES])


def stack_stages(features: Mapping[str, np.ndarray]) -> tuple[np.ndarray, list[tuple[slice, float]]]:
    """Return the features of all stages side by side, and the blocks by which ``head2toe`` scales them."""
    stages = list(features.values())
    ends = np.cumsum([0, *(x.shape[1] for x in stages)]).tolist()
    blocks = zip(map(slice, ends[:-1], ends[1:]), split_variance(len(stages)), strict=True)
    return np.concatenate(stages, 1), list(blocks)


def _score_transferability(
    observed: NetworkObservations, labels: np.ndarray, folds: np.ndarray, copies: np.ndarray
) -> TransferabilityScores:
    first = np.unique(copies, return_index=True)[1]  # LogME would count a duplicate as further evidence
    last, original = list(observed.features.values())[-1], observed.probabilities
    most = compute_max_hscore(labels[first], last.shape[1])
    return TransferabilityScores(
        logme(last[first], labels[first]),
        hscore(last[first], labels[first]) / most if most else None,
        None if original is None else explain_entropy(leep(original, labels, folds), labels),
        None if original is None else explain_entropy(nce(original.argmax(1), labels, folds), labels),
    )


def _find_noise(probes: Mapping[str, CrossValidation], labels: np.ndarray) -> LabelNoise:
    """Return the label noise by the probe of least loss."""
    best = min(probes.values(), key=lambda probe: probe.loss)
    checked = beats_majority(probes, labels) and can_check_labels(probes)
    enough = (np.bincount(labels)[labels] >= MIN_NOISE_LABELS) & checked
    return find_label_noise(best.probabilities, np.where(enough, labels, -1))
