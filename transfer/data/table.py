"""ImageTable: one row per image, with its targets, split and group."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal

import numpy as np

from transfer.data.left_out import LeftOut

DEFAULT_DOMAIN = "all"  # domain of images that name none
LABEL_SETS = "label_sets"  # kind of an object that no head predicts: see `transfer.data.label_sets.combinations`
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)")


@dataclass(frozen=True)
class Target:
    """The labels that one head predicts.

    Parameters
    ----------
    values : ndarray, shape (N,) or (N, classes)
        int64 class indices, -1 if unknown; or float64 numbers, NaN if unknown; or, of several labels an image, int8
        for each of them: 1 if the image shows it, 0 if not, -1 if unknown.
    kind : str
        The kind of head that predicts it: ``softmax``, ``binary``, ``regression`` or a registered one; or `LABEL_SETS`.
    classes : tuple of str
        Class names by index; empty for numbers.
    thresholds : tuple of float
        Of several labels an image, the probability from which on each is predicted; empty: 0.5.
    """

    values: np.ndarray
    kind: str = "softmax"
    classes: tuple[str, ...] = ()
    thresholds: tuple[float, ...] = ()

    @property
    def known(self) -> np.ndarray:
        """Return a boolean mask, shape (N,), of known values; of several labels an image, where any is."""
        known: np.ndarray = ~np.isnan(self.values) if self.values.dtype.kind == "f" else self.values >= 0
        return np.any(known, axis=1) if known.ndim == 2 else known


def natural_key(name: str) -> tuple:
    """Return a sort key that orders numbers inside names by value.

    Examples
    --------
    >>> sorted(["c10", "c9", "B1"], key=natural_key)
    ['B1', 'c9', 'c10']
    """
    parts = re.split(r"(\d+)", name.casefold())
    # Compare digits by length, then lexically: int() refuses strings of thousands of digits.
    return tuple((len(n := p.lstrip("0")), n) if i % 2 else p for i, p in enumerate(parts)), name


def parse_number(name: str) -> Decimal | None:
    """Return the value of a name that is a plain decimal number such as ``-1.50``; None for another."""
    return Decimal(name) if _NUMBER.fullmatch(name) else None


def sort_classes(names: Iterable[str]) -> tuple[str, ...]:
    """Return `names` in the order of classes: numbers by value if all are numbers, else in natural order.

    Examples
    --------
    >>> sort_classes(["10", "2", "1.5", "1.25"]), sort_classes(["c10", "c9", "2"])
    (('1.25', '1.5', '2', '10'), ('2', 'c9', 'c10'))
    """
    numbers = {name: parse_number(name) for name in names}
    known = {name: value for name, value in numbers.items() if value is not None}
    if len(known) == len(numbers):
        return tuple(sorted(known, key=lambda name: (known[name], name)))
    return tuple(sorted(numbers, key=natural_key))


def make_softmax_target(names: Sequence[str]) -> Target:
    """Return the target of class `names`, one per image, ``""`` if unknown; see :func:`sort_classes`.

    Examples
    --------
    >>> make_softmax_target(["b", "", "a"])
    Target(values=array([ 1, -1,  0]), kind='softmax', classes=('a', 'b'), thresholds=())
    """
    classes = sort_classes({n for n in names if n})
    index = {name: i for i, name in enumerate(classes)} | {"": -1}
    return Target(np.array([index[n] for n in names], dtype=np.int64), "softmax", classes)


@dataclass(frozen=True)
class ImageTable:
    """One row per image: its file, its targets, its given split and group.

    Parameters
    ----------
    paths : ndarray of str, shape (N,)
        Absolute paths, or addresses of images inside tar shards (`transfer.data.shards.address`).
    targets : dict of str to Target
        Always holds ``"object"`` and ``"domain"``; further CSV columns by their names.
    split : ndarray of str, shape (N,)
        ``"train"``, ``"val"``, ``"test"`` where the data set gives it, else ``""``.
    group : ndarray of str, shape (N,)
        Images of one group stay on one side of a split; ``""`` for none.
    name : str
        The set's name or folder, for messages.
    notes : tuple of str
        What a reader should know of how the table came about (empty class folders, bad images left out, ...).
    sha256 : ndarray of str, shape (N,), optional
        Of each file's bytes, where that is known already.
    choices : tuple of str
        Of the notes, those on how the files were read where another reading was possible.
    left_out : tuple of LeftOut
        Files that are ignored, rows that cannot be read, and bad images that are skipped.
    added : ndarray of bool, shape (N,), optional
        Images of a folder that ``--unlabelled`` names; None: there is none.
    unlabelled : tuple of LeftOut
        Rows of a CSV manifest or samples of shards that name no object.
    """

    paths: np.ndarray
    targets: dict[str, Target]
    split: np.ndarray
    group: np.ndarray
    name: str = ""
    notes: tuple[str, ...] = field(default=())
    sha256: np.ndarray | None = None
    choices: tuple[str, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    unlabelled: tuple[LeftOut, ...] = ()
    added: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def object(self) -> np.ndarray:
        """Object index of each image, int64, shape (N,), -1 where unknown."""
        return self.targets["object"].values

    @property
    def domain(self) -> np.ndarray:
        """Domain index of each image, int64, shape (N,), -1 where unknown."""
        return self.targets["domain"].values

    @property
    def objects(self) -> tuple[str, ...]:
        """Object names by index."""
        return self.targets["object"].classes

    @property
    def domains(self) -> tuple[str, ...]:
        """Domain names by index."""
        return self.targets["domain"].classes

    @property
    def has_objects(self) -> bool:
        """Whether images have an object of their own; else it stands for their set of labels, and no head predicts it.

        Splits, duplicates and conflicts then go by the set of labels.
        """
        return self.targets["object"].kind != LABEL_SETS

    def take(self, rows: np.ndarray) -> "ImageTable":
        """Return the table of `rows` (indices or a boolean mask), class names unchanged."""
        return replace(
            self,
            paths=self.paths[rows],
            targets={k: replace(t, values=t.values[rows]) for k, t in self.targets.items()},
            split=self.split[rows],
            group=self.group[rows],
            sha256=None if self.sha256 is None else self.sha256[rows],
            added=None if self.added is None else self.added[rows],
        )
