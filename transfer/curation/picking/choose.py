"""Choose the images to label next: any strategy, near-duplicates never twice, every domain in proportion."""

from dataclasses import dataclass

import numpy as np
import torch

from transfer.curation.picking.pool import Choice, Pool, scale_to_unit_length
from transfer.curation.picking.registry import find_strategy
from transfer.errors import TransferError
from transfer.semi_supervised.seed_probe import SeedProbe, scale_features

NOTHING_LEFT = (
    "no image without a label is left: name a folder of unlabelled images, or compare strategies on the labelled ones "
    "by --simulate"
)


@dataclass(frozen=True, eq=False)
class PickingTask:
    """The images that strategies choose from.

    Parameters
    ----------
    features : ndarray of float32, shape (N, width)
    labels : ndarray of int64, shape (N,)
        -1 where unknown.
    classes : tuple of str
        Names by label.
    groups : ndarray of int64, shape (N,), optional
        Near-duplicates share a group: of a group one image is chosen, none if it has a label.
    domains : ndarray of int64, shape (N,), optional
        Each has a share of the choices in proportion to its images without a label.
    closed : ndarray of bool, shape (N,), optional
        Rows without a label that were chosen before, or must not be chosen; nor must others of their groups.
    """

    features: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    groups: np.ndarray | None = None
    domains: np.ndarray | None = None
    closed: np.ndarray | None = None

    @property
    def covered(self) -> np.ndarray:
        """Rows that are labelled or closed, bool (N,)."""
        known = self.labels >= 0
        return known if self.closed is None else known | self.closed

    def find_candidates(self) -> np.ndarray:
        """Return a mask (N,) of the rows that may be chosen: the first of each group without a covered row."""
        groups = np.arange(len(self.labels)) if self.groups is None else self.groups
        first = np.zeros(len(groups), bool)
        first[np.unique(groups, return_index=True)[1]] = True
        return first & ~np.isin(groups, groups[self.covered])

    def predict(self) -> np.ndarray | None:
        """Return class probabilities (N, classes) by a probe on the labels; None with fewer than two classes."""
        if len(np.unique(self.labels[self.labels >= 0])) < 2:
            return None
        scaled = scale_features(torch.from_numpy(np.asarray(self.features, np.float32)))
        return SeedProbe(scaled, self.labels, len(self.classes)).predict()


def choose_images(task: PickingTask, n: int, strategy: str = "auto", seed: int = 0) -> list[Choice]:
    """Return `n` images to label, those that matter most first.

    Raises
    ------
    TransferError
        The strategy is unknown or needs labels that are not there, or there are fewer than `n` images to choose from.
    """
    found = find_strategy(strategy)
    candidates, probabilities = task.find_candidates(), task.predict()
    count = int(candidates.sum())
    if n > count:
        without = int((~task.covered).sum())
        alike = f" ({without:,} have no label; the others are near-duplicates)" if count < without else ""
        left = f"only {count:,} images can be chosen{alike}" if count else NOTHING_LEFT
        raise TransferError(f"--n {n}: {left}")
    if found.needs_labels and probabilities is None:
        raise TransferError(f"--strategy {strategy} needs labels of two classes or more: begin with auto")
    domains = np.zeros(len(candidates), np.int64) if task.domains is None else task.domains
    chosen: list[tuple[float, int, Choice]] = []
    for domain, quota in allot(n, domains[candidates]).items():
        rows = np.flatnonzero(domains == domain)
        pool = Pool(
            scale_to_unit_length(task.features[rows]),
            candidates[rows],
            task.covered[rows],
            None if probabilities is None else probabilities[rows],
            task.classes,
            seed,
        )
        for place, each in enumerate(found.load()(pool, quota)):
            choice = Choice(int(rows[each.row]), each.score, each.reason)
            chosen.append(((place + 0.5) / quota, domain, choice))
    return [choice for *_, choice in sorted(chosen, key=lambda each: each[:2])]


def allot(n: int, domains: np.ndarray) -> dict[int, int]:
    """Return how many of `n` choices each domain gets: in proportion to its images, one at least if there are enough.

    Parameters
    ----------
    domains : ndarray of int64
        Of each image that may be chosen, `n` or more.

    Examples
    --------
    >>> allot(10, np.array([0] * 90 + [1] * 8 + [2] * 2))
    {0: 8, 1: 1, 2: 1}
    """
    names, sizes = np.unique(domains, return_counts=True)
    share = n * sizes / sizes.sum()
    quota = np.minimum(np.maximum(np.floor(share).astype(int), int(n >= len(names))), sizes)
    while (spare := n - int(quota.sum())) != 0:
        step = 1 if spare > 0 else -1
        able = quota < sizes if step > 0 else quota > int(n >= len(names))
        quota[np.argmax(np.where(able, step * (share - quota), -np.inf))] += step
    return {int(name): int(count) for name, count in zip(names, quota, strict=True) if count}
