"""Labels and `sample_domain` -> the targets of a table, and which rows are to be adapted to.

`sample_domain` is skada's: an integer per image, from 0 on for the domains that labels are known of, negative for those
to adapt to, whose labels are never looked at. Names do as well: domains in which every label is masked (None, NaN, ""
or -1) are the ones to adapt to.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.utils import column_or_1d
from sklearn.utils.multiclass import check_classification_targets

from transfer.data.table import Target
from transfer.estimator.files import InputError

TARGET = "target"  # several are adapted to as one


@dataclass(frozen=True)
class Labels:
    """What is known of each image.

    Parameters
    ----------
    classes : ndarray
        What was given as labels, sorted, without the masked ones.
    object, domain : Target
        Classes named by their place in `classes`; domains by their own name, ``target`` for those to adapt to.
    sources : tuple of str
        The domains with labels; empty unless there is one to adapt to.
    """

    classes: np.ndarray
    object: Target
    domain: Target
    sources: tuple[str, ...] = ()


def read_labels(y: Any, sample_domain: Any, count: int) -> Labels:
    """Return the labels of `count` images, those of target domains masked.

    Raises
    ------
    InputError
        Lengths differ, labels are missing or no classes, or there is nothing to learn from.
    """
    if y is None:
        raise InputError("requires y to be passed, but the target y is None")
    labels = column_or_1d(np.array(y, dtype=object) if _holes(y) else y, warn=True)
    domains = None if sample_domain is None else column_or_1d(sample_domain)
    for name, given in (("y", labels), ("sample_domain", domains)):
        if given is not None and len(given) != count:
            raise InputError(f"{name} has {len(given)} entries for {count} images: inconsistent numbers of samples")
    target = np.zeros(count, bool) if domains is None else _targets(domains, labels)
    known = labels[~target]
    if not len(known):
        raise InputError("every image is of a target domain: there are no labels to learn from")
    if any(map(_missing, known)):
        raise InputError("y lacks labels (None, NaN or ''): only target domains may, see sample_domain")
    if known.dtype == object and all(isinstance(label, int | np.integer) for label in known):
        known = known.astype(np.int64)
    check_classification_targets(known)
    try:
        classes, index = np.unique(known, return_inverse=True)
    except TypeError as error:
        raise InputError(f"y mixes kinds of labels that have no order: {error}") from error
    if len(classes) < 2:
        raise InputError(f"the classifier needs at least 2 classes, and the data has only one class: {classes[0]!r}")
    values = np.full(count, -1, dtype=np.int64)
    values[~target] = index
    names = np.full(count, "one", dtype=object) if domains is None else np.array([str(d) for d in domains], object)
    names[target] = TARGET
    listed = tuple(sorted(set(names)))
    place = np.array([listed.index(name) for name in names], dtype=np.int64)
    sources = tuple(name for name in listed if name != TARGET) if target.any() else ()
    return Labels(
        classes, Target(values, "softmax", tuple(map(str, classes))), Target(place, "softmax", listed), sources
    )


def _holes(y: Any) -> bool:
    """Return whether `y` is a list in which labels are left out, which numpy would make text of."""
    return isinstance(y, list | tuple) and any(map(_missing, y))


def _targets(domains: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return where an image is of a domain to adapt to, bool (N,)."""
    if domains.dtype.kind in "iu":
        return domains < 0
    if domains.dtype.kind not in "UO":
        raise InputError(f"sample_domain is of {domains.dtype}: give integers (negative for targets) or names")
    if TARGET in {str(domain) for domain in domains} and not all(_masked(label) for label in labels[domains == TARGET]):
        raise InputError("a domain called 'target' has labels: call it otherwise, or mask them by None")
    masked = np.array([_masked(label) for label in labels])
    return np.isin(domains, [name for name in np.unique(domains) if masked[domains == name].all()])


def _missing(label: Any) -> bool:
    return label is None or label == "" or label != label


def _masked(label: Any) -> bool:
    return _missing(label) or label in (-1, "-1")
