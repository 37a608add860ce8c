"""Whether and how labels are propagated, chosen by cross-validation on the labelled images.

Few labels cannot tell much. So a second test, which needs none, decides how much they must tell: where two ways to
spread the same labels, along a graph and by prototypes, agree on most unlabelled images, both are mostly right (Jiang
et al. 2022, "Assessing generalization of SGD via disagreement").
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from torch import Tensor

from transfer.advice.transferability.folds import assign_folds
from transfer.probes.lbfgs import DEFAULT_PROBE_L2
from transfer.semi_supervised.comparison import HeldOutLabels
from transfer.semi_supervised.information import can_refine
from transfer.semi_supervised.knn_graph import NearestNeighbours
from transfer.semi_supervised.propagation import PropagationSettings
from transfer.semi_supervised.seed_probe import SeedProbe

COMPARED_FOLDS = 5
# Labelled rows that are compared. Of many labels as few folds are held out as have that many, so that the probes take
# little more time than that of the run.
MAX_HELD_OUT = 300
# Share of unlabelled rows on which the graph alone must agree with PROTOTYPES. With one to three labels of each class
# it is 0.69 or more on amazon, dslr and scanned digits, where propagation pays, and at most 0.68 on printed digits,
# blended ones with two or three labels, and all digits at once, where it does not.
MIN_AGREEMENT = 0.68
# Standard errors by which a candidate must beat the probe on the held-out rows: without agreement, and with it. The
# first is a one-sided test of 5 % for four candidates together (Bonferroni's correction).
STRICT_ERRORS, LENIENT_ERRORS = 2.24, 0.0
# With up to this number of labels of each class on average, held-out labels do not tell candidates apart: PROTOTYPES
# alone is compared with the probe. It is as good as the others with three labels of each class, and better with one.
FEW_LABELS = 4

PROTOTYPES = PropagationSettings(5, 0.8, 0.03, refined=True)
# The first trusts the graph most, the last one smooths the probe's predictions (Huang et al. 2020, "Combining label
# propagation and simple models out-performs graph neural networks").
CANDIDATES = (
    PropagationSettings(10, 0.9, 0.1),
    PropagationSettings(5, 0.8, 0.3),
    PropagationSettings(5, 0.5, 1.0),
)
GRAPH_ALONE = PropagationSettings(10, 0.8, 0.0)
MOST_NEIGHBOURS = max(settings.neighbours for settings in (PROTOTYPES, *CANDIDATES, GRAPH_ALONE))


@dataclass(frozen=True)
class PropagationChoice:
    """The chosen settings; None: the plain probe predicts held-out labels better, so unlabelled rows have no label.

    `held_out` labelled rows were compared: the accuracies of the probe and of the best candidate on them.
    `graph_agreement` is the share of unlabelled rows on which the graph alone and the prototypes agree.
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

    Where there are no more labels to hold out than classes, the agreement of graph and prototypes decides alone.

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
    rows, prototypes = probe.labelled, replace(PROTOTYPES, refined=can_refine(len(x), classes))
    folds = assign_label_folds(labels[rows], rows if groups is None else groups[rows], seed)
    held = np.flatnonzero(folds >= 0)
    if len(held) <= len(np.unique(labels[rows])):
        agreement = _measure_agreement(HeldOutLabels(probe, labels, neighbours, folds), prototypes)
        agreed = count_required_errors(agreement) <= 0
        return PropagationChoice(prototypes if agreed else None, graph_agreement=round(agreement, 4))
    needed = np.searchsorted(np.cumsum(np.bincount(folds[held])), MAX_HELD_OUT) + 1
    folds[folds >= needed] = -1
    held = np.flatnonzero(folds >= 0)
    if len(held) > MAX_HELD_OUT:
        held = np.sort(np.random.default_rng(seed).permutation(held)[:MAX_HELD_OUT])
    compared = HeldOutLabels(probe, labels, neighbours, folds, held, probe.choose_l2(folds))
    few = prototypes.refined and len(rows) <= FEW_LABELS * len(np.unique(labels[rows]))
    correct = compared.mark_correct()
    hits = {each: compared.mark_correct(each) for each in [prototypes, *(() if few else CANDIDATES)]}
    agreement = _measure_agreement(compared, prototypes)
    best, most = None, -np.inf
    for settings, hit in hits.items():
        difference = hit.astype(int) - correct.astype(int)
        # One more row that differs: few rows without a difference are no evidence.
        error = float(np.sqrt(np.abs(difference).sum() + 1))
        if difference.sum() >= count_required_errors(agreement) * error and difference.sum() > most:
            best, most = settings, difference.sum()
    accuracies = round(float(correct.mean()), 4), round(float(max(hit.mean() for hit in hits.values())), 4)
    return PropagationChoice(best, compared.l2, len(held), *accuracies, round(agreement, 4))


def count_required_errors(agreement: float) -> float:
    """Return by how many standard errors a candidate must beat the probe, given the `agreement` of two candidates."""
    return LENIENT_ERRORS if agreement >= MIN_AGREEMENT else STRICT_ERRORS


def _measure_agreement(data: HeldOutLabels, prototypes: PropagationSettings) -> float:
    """Return the share of unlabelled rows to which the graph alone and `prototypes` give one class.

    The probe stands for prototypes that are not refined.
    """
    unlabelled = data.labels < 0
    if not unlabelled.any():
        return 1.0
    other = data.spread(prototypes) if prototypes.refined else data.probe.predict(data.l2)
    return float((data.spread(GRAPH_ALONE).argmax(1) == other.argmax(1))[unlabelled].mean())


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
