"""Labels and `sample_domain` -> the targets of a table, with the labels of target domains masked.

`sample_domain` follows skada: an integer for each image, 0 or more for source domains, negative for target domains,
whose labels are never read. Names work as well: a domain in which every label is masked (None, NaN, "" or -1) is a
target domain.
"""

import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from sklearn.utils import column_or_1d
from sklearn.utils.multiclass import check_classification_targets

from transfer.data.class_names import ALIKE, find_alike
from transfer.data.pixel_files import InputError
from transfer.data.table import Target
from transfer.estimator.label_sets import LABELS_HEAD, has_several_labels, name_label_sets, read_label_matrix

TARGET = "target"  # the name of all target domains together


@dataclass(frozen=True)
class ImageLabels:
    """Classes and domains of images."""

    classes: np.ndarray  # the distinct labels as given, sorted, without masked ones
    object: Target  # class indices into `classes`
    domain: Target  # by name; ``target`` for all target domains
    sources: tuple[str, ...] = ()  # the source domains; empty if there is no target domain
    several: Target | None = None  # where images have any number of labels: which; `object` is then their set

    @property
    def targets(self) -> dict[str, Target]:
        """The targets of a table."""
        named = {"object": self.object} if self.several is None else {LABELS_HEAD: self.several}
        return named | {"domain": self.domain}


def read_labels(
    y: Any, sample_domain: Any, count: int, *, unlabelled: bool = False, minus_one: bool = False
) -> ImageLabels:
    """Return the labels of `count` images, those of target domains masked.

    With `unlabelled`, any image may lack its label (None, NaN or ""); with `minus_one`, -1 is no label either, as in
    scikit-learn's semi-supervised classifiers. Classes stay as given, as scikit-learn expects; those that differ only
    in spelling get a UserWarning.

    Raises
    ------
    InputError
        Lengths differ, labels are missing or not classes, or no image has a label.
    """
    if y is None:
        raise InputError("requires y to be passed, but the target y is None")
    if has_several_labels(y):
        return _read_several(y, sample_domain, count)
    if isinstance(y, list | tuple) and any(map(_missing, y)):
        y = np.array(y, dtype=object)  # else numpy would convert missing labels to text
    labels = column_or_1d(y, warn=True)
    domains = None if sample_domain is None else column_or_1d(sample_domain)
    for name, given in (("y", labels), ("sample_domain", domains)):
        if given is not None and len(given) != count:
            raise InputError(f"{name} has {len(given)} entries for {count} images: inconsistent numbers of samples")
    target = np.zeros(count, bool) if domains is None else _in_target(domains, labels)
    hidden = target
    if unlabelled:
        hidden = target | np.fromiter(map(_masked if minus_one else _missing, labels), bool, count)
    known = labels[~hidden]
    if not len(known):
        raise InputError("every image is of a target domain or unlabelled: there are no labels to train on")
    if any(map(_missing, known)):
        raise InputError(
            "y lacks labels (None, NaN or ''): only target domains may lack them, see sample_domain, or "
            "unlabelled='rest'"
        )
    if known.dtype == object and all(isinstance(label, int | np.integer) for label in known):
        known = known.astype(np.int64)
    check_classification_targets(known)
    try:
        classes, index = np.unique(known, return_inverse=True)
    except TypeError as error:
        raise InputError(f"y mixes types of labels that cannot be sorted: {error}") from error
    if len(classes) < 2:
        hint = "; -1 is read as no label" if minus_one else ""
        raise InputError(
            f"the classifier needs at least 2 classes, and the data has only one class: {classes[0]!r}{hint}"
        )
    if known.dtype.kind in "UO" and (alike := find_alike(map(str, classes))):
        message = f"y: {' / '.join(', '.join(map(repr, group)) for group in alike)} {ALIKE}: they are different classes"
        warnings.warn(message, UserWarning, stacklevel=3)
    values = np.full(count, -1, dtype=np.int64)
    values[~hidden] = index
    names = np.full(count, "one", dtype=object) if domains is None else np.array([str(d) for d in domains], object)
    names[target] = TARGET
    listed = tuple(sorted(set(names)))
    place = np.array([listed.index(name) for name in names], dtype=np.int64)
    sources = tuple(name for name in listed if name != TARGET) if target.any() else ()
    objects = Target(values, classes=tuple(map(str, classes)))
    return ImageLabels(classes, objects, Target(place, classes=listed), sources)


def _read_several(y: Any, sample_domain: Any, count: int) -> ImageLabels:
    """Return the labels of `count` images that have any number of them."""
    classes, target = read_label_matrix(y)
    labels = read_labels(name_label_sets(target), sample_domain, count, unlabelled=True)
    if labels.sources:
        raise InputError("sample_domain has target domains: adaptation needs one class an image")
    return replace(labels, classes=classes, several=target)


def _in_target(domains: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return which images are of a target domain, bool (N,)."""
    if domains.dtype.kind in "iu":
        return domains < 0
    if domains.dtype.kind not in "UO":
        raise InputError(f"sample_domain is of {domains.dtype}: give integers (negative for targets) or names")
    if TARGET in {str(domain) for domain in domains} and not all(_masked(label) for label in labels[domains == TARGET]):
        raise InputError("a domain called 'target' has labels: rename it, or mask its labels by None")
    masked = np.array([_masked(label) for label in labels])
    return np.isin(domains, [name for name in np.unique(domains) if masked[domains == name].all()])


def _missing(label: Any) -> bool:
    return label is None or label == "" or label != label


def _masked(label: Any) -> bool:
    return _missing(label) or label in (-1, "-1")
