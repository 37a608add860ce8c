"""Whether and how labels are propagated, chosen by cross-validation on the labelled images.

Few labels cannot tell much. So a second test, which needs none, decides how much they must tell: where two classifiers
trained on the same labels, the graph's and the probe, agree on most unlabelled images, both are mostly right (Jiang et
al. 2022, "Assessing generalization of SGD via disagreement").
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from scipy.sparse import csr_array
from torch import Tensor

from transfer.advice.transferability.folds import assign_folds
from transfer.probes.lbfgs import DEFAULT_PROBE_L2
from transfer.semi_supervised.knn_graph import NearestNeighbours
from transfer.semi_supervised.propagation import normalise_scores, solve_propagation
from transfer.semi_supervised.seed_probe import SeedProbe

COMPARED_FOLDS = 5
# Labelled rows that are compared. Of many labels as few folds are held out as have that many, so that the probes take
# little more time than that of the run.
MAX_HELD_OUT = 300
# Share of unlabelled rows on which graph and probe must agree. On amazon, dslr and scanned digits, where propagation
# pays, it is 0.68 to 0.8 with two to five labels of each class; on printed and blended digits, where it harms, 0.55 to
# 0.67.
MIN_AGREEMENT = 0.7
# Standard errors by which a candidate must beat the probe on the held-out rows: without agreement, and with it. The
# first is a one-sided test of 5 % for all three candidates together (Bonferroni's correction).
STRICT_ERRORS, LENIENT_ERRORS = 2.13, 0.0


@dataclass(frozen=True)
class PropagationSettings:
    """The graph's number of neighbours, the weight `alpha` of neighbours, and the seeds of unlabelled rows.

    `prior` is the weight of the probe's probabilities among the seeds; a label has weight 1.
    """

    neighbours: int
    alpha: float
    prior: float


# The first trusts the graph most, the last one smooths the probe's predictions (Huang et al. 2020, "Combining label
# propagation and simple models out-performs graph neural networks").
CANDIDATES = (
    PropagationSettings(10, 0.9, 0.1),
    PropagationSettings(5, 0.8, 0.3),
    PropagationSettings(5, 0.5, 1.0),
)
# For one label of each class, where the agreement alone decides. Where it is 0.7 or more, pseudo-labels are
# 1.9 to 17.1 points more accurate than the probe on sets of photographs, and -2.5 to 11.8 on digits.
SETTINGS_OF_SINGLE_LABELS = PropagationSettings(5, 0.8, 0.03)
GRAPH_ALONE = PropagationSettings(10, 0.8, 0.0)
MOST_NEIGHBOURS = max(settings.neighbours for settings in (*CANDIDATES, SETTINGS_OF_SINGLE_LABELS, GRAPH_ALONE))


@dataclass(frozen=True)
class PropagationChoice:
    """The chosen settings; None: the plain probe predicts held-out labels better, so unlabelled rows have no label.

    `held_out` labelled rows were compared: the accuracies of the probe and of the best candidate on them.
    `graph_agreement` is the share of unlabelled rows on which graph and probe agree.
    """

    settings: PropagationSettings | None
    l2: float = DEFAULT_PROBE_L2
    held_out: int = 0
    probe_accuracy: float | None = None
    propagated_accuracy: float | None = None
    graph_agreement: float | None = None

    def to_plain(self) -> dict[str, Any]:
        """Return the choice as plain values; ``weight`` is that of unlabelled rows, 0 or 1."""
        settings = {field.name: getattr(self.settings, field.name, None) for field in fields(PropagationSettings)}
        measured = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "settings"}
        return settings | {"weight": float(self.settings is not None)} | measured

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> "PropagationChoice":
        """Invert :meth:`to_plain`."""
        settings = PropagationSettings(**{field.name: plain[field.name] for field in fields(PropagationSettings)})
        measured = {field.name: plain[field.name] for field in fields(cls) if field.name != "settings"}
        return cls(settings if plain["weight"] else None, **measured)


def choose_settings(
    x: Tensor,
    labels: np.ndarray,
    classes: int,
    neighbours: NearestNeighbours,
    groups: np.ndarray | None = None,
    seed: int = 0,
) -> PropagationChoice:
    """Return the settings that predict held-out labels best, or none if the probe does.

    Where there are no more labels to hold out than classes, the agreement of graph and probe decides alone.

    Parameters
    ----------
    x : Tensor, shape (N, width)
        Scaled features.
    labels : ndarray of int64, shape (N,)
        -1 where unknown.
    classes : int
    neighbours : NearestNeighbours
        `MOST_NEIGHBOURS` of each row.
    groups : ndarray of int64, shape (N,), optional
        Labelled rows of one group, such as duplicates, are held out together.
    seed : int
        Of the folds.
    """
    probe = SeedProbe(x, labels, classes)
    rows, graph = probe.labelled, neighbours.build_graph(GRAPH_ALONE.neighbours)
    folds = assign_label_folds(labels[rows], rows if groups is None else groups[rows], seed)
    held = np.flatnonzero(folds >= 0)
    if len(held) <= len(np.unique(labels[rows])):
        agreement = _measure_agreement(graph, probe.predict(), rows, labels)
        agreed = count_required_errors(agreement) <= 0
        return PropagationChoice(SETTINGS_OF_SINGLE_LABELS if agreed else None, graph_agreement=round(agreement, 4))
    needed = np.searchsorted(np.cumsum(np.bincount(folds[held])), MAX_HELD_OUT) + 1
    folds[folds >= needed] = -1
    held = np.flatnonzero(folds >= 0)
    if len(held) > MAX_HELD_OUT:
        held = np.sort(np.random.default_rng(seed).permutation(held)[:MAX_HELD_OUT])
    l2 = probe.choose_l2(folds)
    correct, *hits = _predict_held_out(probe, labels, neighbours, folds, held, l2)
    agreement = _measure_agreement(graph, probe.predict(l2), rows, labels)
    best, most = None, -np.inf
    for settings, hit in zip(CANDIDATES, hits, strict=True):
        difference = hit.astype(int) - correct.astype(int)
        # One more row that differs: few rows without a difference are no evidence.
        error = float(np.sqrt(np.abs(difference).sum() + 1))
        if difference.sum() >= count_required_errors(agreement) * error and difference.sum() > most:
            best, most = settings, difference.sum()
    accuracies = round(float(correct.mean()), 4), round(float(max(hit.mean() for hit in hits)), 4)
    return PropagationChoice(best, l2, len(held), *accuracies, round(agreement, 4))


def count_required_errors(agreement: float) -> float:
    """Return by how many standard errors a candidate must beat the probe, given the `agreement` of graph and probe."""
    return LENIENT_ERRORS if agreement >= MIN_AGREEMENT else STRICT_ERRORS


def make_seeds(
    settings: PropagationSettings, predicted: np.ndarray, labelled: np.ndarray, labels: np.ndarray
) -> np.ndarray:
    """Return the seeds (N, classes): one-hot labels of the `labelled` rows, else the `predicted` probabilities."""
    seeds = settings.prior * predicted
    seeds[labelled] = np.eye(predicted.shape[1])[labels[labelled]]
    return seeds


def _predict_held_out(
    probe: SeedProbe, labels: np.ndarray, neighbours: NearestNeighbours, folds: np.ndarray, held: np.ndarray, l2: float
) -> np.ndarray:
    """Return which of the `held` labelled rows probe and candidates predict, bool (1 + candidates, M)."""
    rows = probe.labelled[held]
    source = np.zeros((len(labels), len(rows)))
    source[rows, np.arange(len(rows))] = 1
    # The solution operator is symmetric: a column for each held-out row serves every fold's seeds.
    reach = [solve_propagation(neighbours.build_graph(each.neighbours), source, each.alpha) for each in CANDIDATES]
    correct = np.zeros((1 + len(CANDIDATES), len(rows)), bool)
    for fold in np.unique(folds[held]):
        predicted, trained = probe.predict(l2, folds != fold), probe.labelled[folds != fold]
        tested = np.flatnonzero(folds[held] == fold)
        truth = labels[rows[tested]]
        correct[0, tested] = predicted[rows[tested]].argmax(1) == truth
        for number, settings in enumerate(CANDIDATES):
            scores = reach[number][:, tested].T @ make_seeds(settings, predicted, trained, labels)
            correct[1 + number, tested] = normalise_scores(scores).argmax(1) == truth
    return correct


def _measure_agreement(graph: csr_array, predicted: np.ndarray, labelled: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of unlabelled rows of which the graph alone says what the probe `predicted` (N, classes)."""
    scores = solve_propagation(graph, make_seeds(GRAPH_ALONE, predicted, labelled, labels), GRAPH_ALONE.alpha)
    agreed = scores.argmax(1) == predicted.argmax(1)
    return float(agreed[labels < 0].mean()) if (labels < 0).any() else 1.0


def assign_label_folds(labels: np.ndarray, groups: np.ndarray, seed: int) -> np.ndarray:
    """Return the fold of each labelled row (N,), -1 for classes in a single one of `groups`: they cannot be held out.

    Examples
    --------
    >>> assign_label_folds(np.array([0, 0, 1, 1]), np.array([0, 1, 2, 2]), seed=0).tolist()
    [0, 1, -1, -1]
    """
    pairs = np.unique(np.stack([labels, groups]), axis=1)[0]
    several = np.flatnonzero(np.bincount(pairs, minlength=int(labels.max()) + 1)[labels] > 1)
    folds = np.full(len(labels), -1, np.int64)
    if len(several):
        folds[several] = assign_folds(labels[several], groups[several], folds=COMPARED_FOLDS, seed=seed)
    return folds
