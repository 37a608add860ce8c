"""What is measured before anything is trained: size, similarity, and how far frozen features carry."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from transfer.advise.observe import Observations
from transfer.advise.similarity import Similarity, similarity
from transfer.data.inspect import Inspection, duplicates, merge_groups
from transfer.data.table import ImageTable
from transfer.evaluate.crossval import CrossValidated, cross_validate
from transfer.evaluate.folds import stratified_folds
from transfer.evaluate.hscore import hscore, most
from transfer.evaluate.leep import explained, leep, nce
from transfer.evaluate.logme import logme
from transfer.evaluate.neighbours import neighbour_accuracy
from transfer.evaluate.noise import LabelNoise, label_noise
from transfer.evaluate.size import SetSize, set_size

ROWS = 3000  # images that frozen features are judged by, at most
FOLDS = 5


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
        Of the images with labels to learn from.
    similarity : Similarity
        Of these and those without.
    probes : mapping of str to CrossValidated
        Linear probes on features that stay frozen, by policy: ``linear_probe``, ``truncate:k`` and ``head2toe``.
    neighbours : mapping of str to float
        Leave-one-out accuracy of the 5 nearest neighbours by stage, lowest first.
    transferability : Transferability
    noise : LabelNoise
        Rows are of the judged ones: see `rows`.
    rows : ndarray of int64, shape (J,)
        The images that probes were judged by: ``ROWS`` at most of those to learn from.
    """

    size: SetSize
    similarity: Similarity
    probes: Mapping[str, CrossValidated]
    neighbours: Mapping[str, float]
    transferability: Transferability
    noise: LabelNoise
    rows: np.ndarray


def gather(seen: Observations, table: ImageTable, inspection: Inspection, learn: np.ndarray, seed: int = 0) -> Evidence:
    """Return the evidence of images that a network has observed.

    Parameters
    ----------
    seen : Observations
        Of all rows of `table`.
    learn : ndarray of int64
        Rows whose labels may be used: no others are looked at.
    seed : int
        Of the folds, and of which rows are judged where there are more than ``ROWS``.
    """
    labelled = learn[table.object[learn] >= 0]
    rows = _some(table.object, labelled, seed)
    label = table.object[rows]
    copies = duplicates(inspection)[rows]
    together = [copies]
    if (table.group[rows] != "").any():
        own = np.array([group or f"\0{i}" for i, group in enumerate(table.group[rows])])
        together.append(np.unique(own, return_inverse=True)[1])
    group = merge_groups(together)
    fewest = np.bincount(np.unique(label, return_inverse=True)[1]).min()
    folds = stratified_folds(label, group, folds=int(np.clip(fewest, 2, FOLDS)), seed=seed)
    judged = seen.take(rows)
    stages = list(judged.features)
    probes = {"linear_probe": cross_validate(judged.features[stages[-1]], label, folds)}
    for drop, stage in enumerate(stages[-2::-1], 1):
        probes[f"truncate:{drop}"] = cross_validate(judged.features[stage], label, folds)
    probes["head2toe"] = cross_validate(balanced(judged.features), label, folds)
    best = min(probes.values(), key=lambda probe: probe.loss)
    first = np.unique(copies, return_index=True)[1]  # LogME counts a copy as further evidence
    last, original = judged.features[stages[-1]], judged.probabilities
    return Evidence(
        set_size(table.take(labelled), inspection.take(labelled)),
        similarity(seen),
        probes,
        {s: neighbour_accuracy(x, label, groups=group)["accuracy"] for s, x in judged.features.items()},
        Transferability(
            logme(last[first], label[first]),
            hscore(last[first], label[first]) / most(label[first], last.shape[1]),
            None if original is None else explained(leep(original, label, folds), label),
            None if original is None else explained(nce(original.argmax(1), label, folds), label),
        ),
        label_noise(best.probabilities, label),
        rows,
    )


def balanced(features: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return features of all stages side by side, each stage's with a sum of spreads of 1.

    Wide stages outweigh narrow ones otherwise, and the last is the widest of most networks.
    """
    return np.concatenate([x / max(float(x.std(0).sum()), 1e-12) for x in features.values()], 1)


def _some(label: np.ndarray, rows: np.ndarray, seed: int) -> np.ndarray:
    """Return at most ``ROWS`` of `rows`, every class in its share."""
    if len(rows) <= ROWS:
        return rows
    order = np.random.default_rng(seed).permutation(rows)
    rank = np.empty(len(order))  # of an image within its class, as a fraction
    for c in np.unique(label[order]):
        here = np.flatnonzero(label[order] == c)
        rank[here] = (np.arange(len(here)) + 0.5) / len(here)
    return np.sort(order[np.argsort(rank, kind="stable")[:ROWS]])
