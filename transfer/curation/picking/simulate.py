"""What strategies would have reached: hide the labels of a set, pick in rounds, measure on test images.

Test rows choose nothing: neither a pick nor a setting. Labels of other rows are seen once they are picked.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from transfer.curation.picking.choose import PickingTask, choose_images
from transfer.curation.picking.registry import find_strategy
from transfer.probes.scaling import compute_feature_scale
from transfer.semi_supervised.choose import MOST_NEIGHBOURS, choose_settings
from transfer.semi_supervised.knn_graph import find_neighbours
from transfer.semi_supervised.pseudo_labels import propagate_pseudo_labels
from transfer.semi_supervised.seed_probe import SeedProbe

RANDOM = "random"


@dataclass(frozen=True)
class SimulatedRound:
    """The state after a round of picks, of one strategy and seed.

    `accuracy` is that of a probe on the labels, `propagated` with the other images of the pool as unlabelled ones, both
    on the test rows; `seen` is the share of the classes that have a label.
    """

    labels: int
    accuracy: float
    propagated: float
    seen: float


@dataclass(frozen=True, eq=False)
class LabelledSplit:
    """A labelled set in which strategies pick: the task with all labels of the pool, and the test rows."""

    pool: PickingTask
    test_features: np.ndarray
    test_labels: np.ndarray


def simulate_rounds(
    split: LabelledSplit, strategy: str, sizes: Sequence[int], seed: int, on_round: Callable[[], None] = lambda: None
) -> list[SimulatedRound]:
    """Return the state after each round, of which `sizes` has the number of picks.

    A strategy that needs labels begins with a random round. `on_round` is called after each.

    Raises
    ------
    TransferError
        The pool has too few images.
    """
    truth, needs_labels = split.pool.labels, find_strategy(strategy).needs_labels
    known, rounds = np.full(len(truth), -1, np.int64), []
    for n in sizes:
        ready = len(np.unique(known[known >= 0])) > 1
        task = replace(split.pool, labels=known)
        chosen = choose_images(task, n, strategy if ready or not needs_labels else RANDOM, seed)
        rows = np.array([each.row for each in chosen])
        known = known.copy()
        known[rows] = truth[rows]
        rounds.append(_measure(split, known, seed))
        on_round()
    return rounds


def _measure(split: LabelledSplit, known: np.ndarray, seed: int) -> SimulatedRound:
    x = torch.from_numpy(split.pool.features.astype(np.float32))
    test = torch.from_numpy(split.test_features.astype(np.float32))
    centre = x.mean(0)
    scale = compute_feature_scale(x - centre, centre)
    x, test = (x - centre) * scale, (test - centre) * scale
    classes, labelled = len(split.pool.classes), known >= 0

    both = torch.cat([x, test])

    def measure(labels: np.ndarray, weights: np.ndarray) -> float:
        hidden = np.full(len(test), -1)
        probe = SeedProbe(both, np.append(labels, hidden), classes, np.append(weights, np.zeros(len(test))))
        return float((probe.predict()[len(x) :].argmax(1) == split.test_labels).mean())

    accuracy = propagated = measure(known, np.ones(len(known)))
    if len(np.unique(known[labelled])) > 1:
        neighbours = find_neighbours(x.numpy(), MOST_NEIGHBOURS)
        choice = choose_settings(x, known, classes, neighbours, split.pool.groups, seed)
        if choice.settings:
            found = propagate_pseudo_labels(x, known, classes, choice, neighbours)
            propagated = measure(found.labels, found.weights)
    seen = len(np.unique(known[labelled])) / len(np.unique(split.pool.labels))
    return SimulatedRound(int(labelled.sum()), accuracy, propagated, seen)


def count_labels_needed(labels: Sequence[int], accuracies: Sequence[float], goal: float) -> float | None:
    """Return with how many labels an accuracy is first reached, interpolated between rounds; None if it never is.

    Examples
    --------
    >>> count_labels_needed([10, 20, 40], [0.5, 0.5, 1.0], 0.75), count_labels_needed([10], [0.5], 0.9)
    (30.0, None)
    """
    before = None
    for count, accuracy in zip(labels, accuracies, strict=True):
        if accuracy >= goal:
            if before is None:
                return float(count)
            share = (goal - before[1]) / (accuracy - before[1])
            return float(before[0] + share * (count - before[0]))
        before = count, accuracy
    return None


def summarise_rounds(rounds: dict[str, list[list[SimulatedRound]]]) -> dict[str, Any]:
    """Return by strategy the means over seeds of the ``accuracy``, ``propagated`` and ``seen`` after each round.

    ``labels`` are those of each round. ``needed`` has the number of labels with which each strategy first reaches the
    ``goal``, the mean accuracy of random picks after the last round, with propagated labels; None if it never does.
    """
    first = next(iter(rounds.values()))[0]
    labels = [each.labels for each in first]

    def mean(strategy: str, name: str) -> list[float]:
        return np.mean([[getattr(each, name) for each in seed] for seed in rounds[strategy]], 0).round(4).tolist()

    curves = {s: {name: mean(s, name) for name in ("accuracy", "propagated", "seen")} for s in rounds}
    goal = curves[RANDOM]["accuracy"][-1] if RANDOM in curves else None
    needed = {s: count_labels_needed(labels, curve["propagated"], goal) for s, curve in curves.items()} if goal else {}
    return {"labels": labels, "curves": curves, "goal": goal, "needed": needed}
