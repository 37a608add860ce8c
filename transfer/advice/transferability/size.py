"""How large a set of images is for learning: images, classes, balance, copies."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from transfer.data.duplicates import Inspection, duplicates, merge_groups, near_duplicates
from transfer.data.table import ImageTable

LARGE, EACH = 1000, 20  # images in all, and of a class in the median, from which on a set is large
FEW = 5  # images: a class with fewer leaves a fold of five without one


@dataclass(frozen=True)
class SetSize:
    """How large a set is. Plain values only: see :func:`transfer.config.serialise.to_dict`.

    Parameters
    ----------
    images : int
        All, with a known object or not.
    labelled : int
        Of a known object; all that follows but `copies`, `near_copies` and `distinct` counts these alone.
    classes : int
        That occur.
    fewest, median, most : float
        Images in a class; of two in the middle the median is the smaller one.
    imbalance : float
        `most` / `fewest`.
    effective_classes : float
        Exp of the entropy of the class shares, in nats: `classes` where they are all as large.
    copies : int
        Files byte-identical to an earlier one.
    near_copies : int
        Further images that are near-duplicates of an earlier one.
    distinct : int
        What is left of `images` without either.
    small_classes : tuple of str
        Those with fewer than ``FEW`` images.
    """

    images: int
    labelled: int
    classes: int
    fewest: int
    median: float
    most: int
    imbalance: float
    effective_classes: float
    copies: int
    near_copies: int
    distinct: int
    small_classes: tuple[str, ...]


def set_size(table: ImageTable, inspection: Inspection) -> SetSize:
    """Return how large `table` is; `inspection` is of the same rows (see :func:`transfer.data.duplicates.inspect`)."""
    counts = np.bincount(table.object[table.object >= 0], minlength=len(table.objects))
    present = counts[counts > 0]
    share = present / present.sum()
    files = duplicates(inspection)
    different = len(np.unique(files))
    distinct = len(np.unique(merge_groups([files, near_duplicates(inspection)])))
    fewest, most = int(present.min(initial=counts.max(initial=0))), int(counts.max(initial=0))
    return SetSize(
        images=len(table),
        labelled=int(counts.sum()),
        classes=len(present),
        fewest=fewest,
        median=float(np.quantile(present, 0.5, method="lower")) if len(present) else 0.0,
        most=most,
        imbalance=most / fewest if fewest else 1.0,
        effective_classes=float(np.exp(-(share * np.log(share)).sum())) if len(present) else 0.0,
        copies=len(table) - different,
        near_copies=different - distinct,
        distinct=distinct,
        small_classes=tuple(table.objects[i] for i in np.flatnonzero((counts > 0) & (counts < FEW))),
    )


def scale(images: int, each: float) -> Literal["small", "large"]:
    """Return whether a set of so many labelled images, and so many of the median class, is small or large.

    Examples
    --------
    >>> scale(30, 5), scale(2254, 73), scale(5000, 10)
    ('small', 'large', 'small')
    """
    return "large" if images >= LARGE and each >= EACH else "small"
