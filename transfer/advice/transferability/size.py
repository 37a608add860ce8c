"""Measure how large a training set is: images, classes, balance, duplicates."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from transfer.data.duplicates import Inspection, group_duplicates, group_near_duplicates, merge_groups
from transfer.data.table import ImageTable

MIN_LARGE_IMAGES, MIN_LARGE_IMAGES_PER_CLASS = 1000, 20  # labelled images of a large set: all, and in the median class
MIN_CLASS_IMAGES = 5  # a class with fewer is missing from one of five folds


@dataclass(frozen=True)
class SetSize:
    """The size of a data set. Plain values only: see :func:`transfer.config.serialise.to_dict`."""

    images: int  # all, with or without a known object
    labelled: int  # of a known object; all that follows except copies, near_copies and distinct counts them alone
    classes: int  # with an image
    fewest: int  # images of the smallest class
    median: float  # images of the median class, the lower one of two
    most: int  # images of the largest class
    imbalance: float  # most / fewest
    effective_classes: float  # exp of the entropy of the class shares: `classes` where all are of the same size
    copies: int  # files byte-identical to an earlier one
    near_copies: int  # further images that are near-duplicates of an earlier one
    distinct: int  # images less both
    small_classes: tuple[str, ...]  # those with fewer than MIN_CLASS_IMAGES images


def measure_set_size(table: ImageTable, inspection: Inspection) -> SetSize:
    """Return the size of `table`; `inspection` is of the same rows."""
    counts = np.bincount(table.object[table.object >= 0], minlength=len(table.objects))
    present = counts[counts > 0]
    share = present / present.sum()
    files = group_duplicates(inspection)
    different = len(np.unique(files))
    distinct = len(np.unique(merge_groups([files, group_near_duplicates(inspection)])))
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
        small_classes=tuple(table.objects[i] for i in np.flatnonzero((counts > 0) & (counts < MIN_CLASS_IMAGES))),
    )


def classify_size(images: int, images_per_class: float) -> Literal["small", "large"]:
    """Return whether a set is small or large, by its labelled images and those of its median class.

    Examples
    --------
    >>> classify_size(30, 5), classify_size(2254, 73), classify_size(5000, 10)
    ('small', 'large', 'small')
    """
    return "large" if images >= MIN_LARGE_IMAGES and images_per_class >= MIN_LARGE_IMAGES_PER_CLASS else "small"
