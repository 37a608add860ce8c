"""Labels that are likely wrong, ranked, by confident learning on cross-fitted probabilities; classes that are confused.

Nobody looks at a thousand images: what counts is how many wrong labels are among those ranked first.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from transfer.advice.transferability.folds import assign_folds
from transfer.advice.transferability.noise import find_label_noise
from transfer.curation.inspection.finding import Finding, FoundItem
from transfer.data.table import ImageTable
from transfer.semi_supervised.seed_probe import SeedProbe, scale_features

MIN_LABELS = 3  # of a class: with fewer, most folds have none to learn it from
MIN_CONFUSED, MIN_CONFUSED_SHARE = 3, 0.05  # images, and as a share of both classes
CONFUSED_SHOWN = 12  # images of a pair, the most confused first


@dataclass(frozen=True)
class LabelRanking:
    """How far each label is to be doubted; rows without a label, or of a class with too few, are left out.

    Parameters
    ----------
    order : ndarray of int64, shape (M,)
        Rows, the most doubtful label first.
    suspects : ndarray of int64, shape (S,)
        Those of them whose label contradicts a confident prediction, in the same order.
    suggested : ndarray of int64, shape (N,)
        The likeliest class other than the label, -1 for rows that are left out.
    probabilities : ndarray, shape (N, C)
        Of each class, cross-fitted; for rows that are left out the mean over the probes of all folds.
    estimated : int
        Estimated number of wrong labels.
    l2 : float
        L2 value of the probes, of lowest loss on held-out images.
    """

    order: np.ndarray
    suspects: np.ndarray
    suggested: np.ndarray
    probabilities: np.ndarray
    estimated: int
    l2: float

    @property
    def doubtful(self) -> np.ndarray:
        """Rows to look at in a round of a review: as many as suspects or estimated wrong labels, whichever is more."""
        return self.order[: max(len(self.suspects), self.estimated)]


def rank_labels(
    features: np.ndarray, labels: np.ndarray, groups: np.ndarray | None = None, seed: int = 0
) -> LabelRanking | None:
    """Rank labels (N,), -1 where unknown, by how far `features` (N, F) contradict them; None without two classes.

    Each image is predicted by a linear probe that was fitted on other folds; duplicates (`groups`, (N,)) share a fold.
    The order is that of the probability of the label (self-confidence, Northcutt et al. 2021): of 10 % wrong labels in
    digits, it has 85 % among the first 10 % of the images, an order by margin 79 %, suspects before all others 76 %.
    """
    enough = np.bincount(labels[labels >= 0], minlength=1) >= MIN_LABELS
    labelled = np.where((labels >= 0) & enough[labels], labels, -1)
    rows = np.flatnonzero(labelled >= 0)
    groups = np.arange(len(labels)) if groups is None else groups
    if len(np.unique(labelled[rows])) < 2 or len(np.unique(groups[rows])) < 2:
        return None
    folds = assign_folds(labelled[rows], groups[rows], seed=seed)
    probe = SeedProbe(scale_features(torch.from_numpy(features)), labelled, int(labelled.max()) + 1)
    probabilities, l2 = probe.predict_held_out(folds)
    noise = find_label_noise(probabilities, labelled)
    own = probabilities[rows, labelled[rows]]
    order = rows[np.argsort(own, kind="stable")]
    others = probabilities[rows].copy()
    others[np.arange(len(rows)), labelled[rows]] = -1
    suggested = np.full(len(labels), -1)
    suggested[rows] = others.argmax(1)
    suggested[noise.suspects] = noise.called
    return LabelRanking(order, order[np.isin(order, noise.suspects)], suggested, probabilities, noise.count, l2)


def find_label_suspects(table: ImageTable, ranking: LabelRanking) -> Iterator[Finding]:
    """Yield a finding with the suspects of `ranking`, if there are any."""
    items = [_describe(table, ranking, row) for row in ranking.suspects.tolist()]
    if items:
        yield Finding(
            "label_suspects",
            "Labels to check",
            "A probe that was fitted without the image confidently predicts another class than its label "
            f"(confident learning). It estimates {ranking.estimated} wrong labels; similar classes add false alarms.",
            "Look at them in this order and mend the wrong ones: transfer review does it by single keys.",
            items,
        )


def _describe(table: ImageTable, ranking: LabelRanking, row: int) -> FoundItem:
    given, other = int(table.object[row]), int(ranking.suggested[row])
    p = ranking.probabilities[row]
    note = f"{table.objects[given]} {100 * p[given]:.0f} %, {table.objects[other]} {100 * p[other]:.0f} %"
    return FoundItem((row,), note, table.objects[other])


def find_confused_classes(table: ImageTable, ranking: LabelRanking) -> Iterator[Finding]:
    """Yield a finding with the pairs of classes that the cross-fitted probe confuses, if there are any."""
    rows = ranking.order
    label, predicted = table.object[rows], ranking.probabilities[rows].argmax(1)
    counts = np.zeros((len(table.objects),) * 2, np.int64)
    np.add.at(counts, (label, predicted), 1)
    sizes, both = counts.sum(1), counts + counts.T
    share = both / np.maximum(sizes[:, None] + sizes, 1)
    pairs = np.argwhere(np.triu((both >= MIN_CONFUSED) & (share >= MIN_CONFUSED_SHARE), 1))
    items = []
    for a, b in sorted(pairs.tolist(), key=lambda pair: -share[pair[0], pair[1]]):
        of_pair = rows[((label == a) & (predicted == b)) | ((label == b) & (predicted == a))]
        names = f"{table.objects[a]} / {table.objects[b]}"
        note = f"{names}: {both[a, b]} of {sizes[a] + sizes[b]} confused ({100 * share[a, b]:.0f} %)"
        items.append(FoundItem(tuple(of_pair[:CONFUSED_SHOWN].tolist()), note))
    if items:
        yield Finding(
            "confused_classes",
            "Classes that the features hardly tell apart",
            "A probe on the pretrained features predicts one for the other. Pictures: the most confused ones.",
            "Merge classes that mean the same, write down where the border is, or train more than the last layer.",
            items,
        )
