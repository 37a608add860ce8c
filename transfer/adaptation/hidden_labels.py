"""The target's labels put away: a table without them, and the truth for the final evaluation."""

from dataclasses import replace
from typing import NoReturn

import numpy as np

from transfer.data.splits import mask_labels
from transfer.data.table import ImageTable, Target
from transfer.heads import find_head_kind


class HiddenLabels:
    """True objects of a target's images, for the final evaluation alone.

    It is no array, holds no public field that has a label in it, prints none and cannot be pickled: a label
    comes out by :meth:`reveal` or not at all.

    Parameters
    ----------
    table : ImageTable
        As it was loaded, nothing masked.
    target : str
        The domain.
    learnt : tuple of str
        Classes that a model can answer, in its order.
    """

    def __init__(self, table: ImageTable, target: str, learnt: tuple[str, ...]) -> None:
        self._target, self._learnt = target, len(learnt)
        self._mine = table.domain == table.domains.index(target)
        held = np.unique(table.object[self._mine & (table.object >= 0)])
        own = tuple(table.objects[i] for i in held if table.objects[i] not in learnt)
        self.classes = (*learnt, *own)
        place = {name: i for i, name in enumerate(self.classes)}
        index = np.array([*(place.get(name, -1) for name in table.objects), -1], np.int64)
        self._object = np.where(self._mine, index[table.object], -1)

    @property
    def known(self) -> bool:
        """Return whether any image of the target has a label: without, no accuracy can be measured."""
        return bool((self._object >= 0).any())

    def reveal(self, rows: np.ndarray) -> np.ndarray:
        """Return the true class of each of `rows`, int64, shape (n,): an index into `classes`, -1 where unknown.

        The first of `classes` are those that were learnt, in the model's order; an index beyond them is of an
        object that no model can answer, so that such images count as wrong.

        Raises
        ------
        ValueError
            A row is not of the target.
        """
        if not self._mine[rows].all():
            raise ValueError(f"rows that are not of {self._target}: their labels are in the table")
        return self._object[rows]

    def notes(self, rows: np.ndarray) -> tuple[str, ...]:
        """Return what a reader of the accuracy on `rows` should know."""
        true, n = self.reveal(rows), len(rows)
        unknown, beyond = int((true < 0).sum()), true[true >= self._learnt]
        if unknown == n:
            return (f"no test image of {self._target} has a label: its accuracy is not measured",)
        notes = []
        if unknown:
            notes.append(f"{unknown} of {n} test images of {self._target} have no label: not counted")
        if len(beyond):
            names = [self.classes[i] for i in np.unique(beyond)]
            some = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
            notes.append(
                f"{len(beyond)} of {n} test images of {self._target} show what no labelled image does ({some}): "
                "no answer can be right, each counts as wrong"
            )
        return tuple(notes)

    def __repr__(self) -> str:
        return f"HiddenLabels({self._target})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("HiddenLabels is never copied or saved: it would carry the target's labels along")


def hide_labels(
    table: ImageTable, target: str, learnt: np.ndarray, labelled: np.ndarray
) -> tuple[ImageTable, HiddenLabels]:
    """Return the table as methods may see it, and what it hides.

    Parameters
    ----------
    table : ImageTable
        As it was loaded.
    target : str
        The domain to adapt to.
    learnt : ndarray of int64
        Source rows: they keep every label.
    labelled : ndarray of int64
        Target rows that keep their object, though no other target.

    Returns
    -------
    ImageTable
        Of all other rows only the domain is known. Its classes are those that a known label has, for the name
        of any other would tell what the target holds.
    HiddenLabels
    """
    masked = mask_labels(table, np.setdiff1d(np.arange(len(table)), np.union1d(learnt, labelled)))
    masked = mask_labels(masked, labelled, keep=("domain", "object"))
    targets = {name: t if name == "domain" else _without_unseen(t) for name, t in masked.targets.items()}
    masked = replace(masked, targets=targets)
    return masked, HiddenLabels(table, target, masked.objects)


def _without_unseen(target: Target) -> Target:
    """Return `target` without the classes that no known row has."""
    if not find_head_kind(target.kind).droppable_classes:
        return target
    seen = np.unique(target.values[target.known])
    index = np.full(len(target.classes) + 1, -1)  # one more, for -1
    index[seen] = np.arange(len(seen))
    return replace(target, values=index[target.values], classes=tuple(target.classes[i] for i in seen))
