"""Target labels cannot leak: methods get a table without them, and the final evaluation alone can reveal them."""

from dataclasses import replace
from typing import NoReturn

import numpy as np

from transfer.data.splits import mask_labels
from transfer.data.table import ImageTable
from transfer.data.unlabelled import NO_CLASS
from transfer.errors import list_examples
from transfer.heads.trained_classes import drop_untrained_classes


class HiddenLabels:
    """The true objects of the target's images, for the final evaluation alone.

    It is no array, has no public field with a label, prints none and cannot be copied or pickled: :meth:`reveal` is the
    only way to a label. `table` is unmasked; a model can predict `trained_classes`, in this order. `no_classes` are the
    names that :func:`forget_no_classes` took out.
    """

    def __init__(
        self, table: ImageTable, target: str, trained_classes: tuple[str, ...], no_classes: tuple[str, ...] = ()
    ) -> None:
        self._target, self._trained, self._no_classes = target, len(trained_classes), no_classes
        self._in_target = table.domain == table.domains.index(target)
        present = np.unique(table.object[self._in_target & (table.object >= 0)])
        target_only = tuple(table.objects[i] for i in present if table.objects[i] not in trained_classes)
        self.classes = (*trained_classes, *target_only)
        index_of = {name: i for i, name in enumerate(self.classes)}
        index = np.array([*(index_of.get(name, -1) for name in table.objects), -1], np.int64)
        self._object = np.where(self._in_target, index[table.object], -1)

    @property
    def known(self) -> bool:
        """Return whether any image of the target has a label; otherwise no accuracy can be measured."""
        return bool((self._object >= 0).any())

    def reveal(self, rows: np.ndarray) -> np.ndarray:
        """Return the true class of each of `rows`, int64, shape (n,): an index into `classes`, -1 if unknown.

        `classes` begins with the trained ones, in the model's order. A later index is an object that no model can
        predict, so that such images count as errors.

        Raises
        ------
        ValueError
            A row is not of the target.
        """
        if not self._in_target[rows].all():
            raise ValueError(f"rows that are not of {self._target}: their labels are in the table")
        return self._object[rows]

    def notes(self, rows: np.ndarray) -> tuple[str, ...]:
        """Return notes on the accuracy on `rows`: unknown labels, objects that the model cannot predict."""
        true, n = self.reveal(rows), len(rows)
        unknown, beyond = int((true < 0).sum()), true[true >= self._trained]
        listed = list_examples(self._no_classes)
        why = f" (the source has no class {listed}, so this is read as no label)" if self._no_classes else ""
        if unknown == n:
            return (f"no target labels: accuracy on {self._target} is not measured{why}",)
        notes = []
        if unknown:
            notes.append(f"{unknown} of {n} test images of {self._target} have no label: not counted{why}")
        if len(beyond):
            listed = list_examples([self.classes[i] for i in np.unique(beyond)])
            notes.append(
                f"{len(beyond)} of {n} test images of {self._target} show objects without any training label "
                f"({listed}): no prediction can be correct, each counts as an error"
            )
        return tuple(notes)

    def __repr__(self) -> str:
        return f"HiddenLabels({self._target})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("HiddenLabels is never copied or saved: it would carry the target's labels along")


def forget_no_classes(
    table: ImageTable, source_rows: np.ndarray, target_rows: np.ndarray, *, few_labels: bool = False
) -> tuple[ImageTable, tuple[str, ...]]:
    """Return `table` without the target's labels that name no class, and these names.

    People put unlabelled images into a class folder of any name, since tools ask for one. A name of `target_rows` that
    no source row has means no label if it says so (`NO_CLASS`), or if no name of the target is a class of the source;
    then every prediction would count as an error. With `few_labels`, some labels of the target are to be used, so that
    other names are classes that the source lacks; which ones must not depend on labels that are not drawn.
    """
    trained, present = (np.unique(table.object[rows]) for rows in (source_rows, target_rows))
    new = np.setdiff1d(present[present >= 0], trained)
    shared = np.intersect1d(present, trained[trained >= 0])
    if len(shared) or few_labels:
        new = np.array([k for k in new if table.objects[k].strip().casefold() in NO_CLASS], np.int64)
    rows = target_rows[np.isin(table.object[target_rows], new)]
    values = table.object.copy()
    values[rows] = -1
    target = replace(table.targets["object"], values=values)
    return replace(table, targets=table.targets | {"object": target}), tuple(table.objects[k] for k in new)


def hide_labels(
    table: ImageTable,
    target: str,
    source_rows: np.ndarray,
    labelled: np.ndarray,
    no_classes: tuple[str, ...] = (),
) -> tuple[ImageTable, HiddenLabels]:
    """Return the table that methods may use, without the target's labels, and the hidden labels.

    In that table, `source_rows` have every label, the target's rows `labelled` have their object, and of all other rows
    only the domain is known. Its classes are those with a known label, since the name of any other class would reveal
    what the target contains.
    """
    masked = mask_labels(table, np.setdiff1d(np.arange(len(table)), np.union1d(source_rows, labelled)))
    masked = mask_labels(masked, labelled, keep=("domain", "object"))
    rows = np.arange(len(masked))
    targets = {n: t if n == "domain" else drop_untrained_classes(t, rows) for n, t in masked.targets.items()}
    masked = replace(masked, targets=targets)
    return masked, HiddenLabels(table, target, masked.objects, no_classes)
