"""Byte-identical images with different objects: at most one of their labels is right."""

from collections import defaultdict
from dataclasses import replace

import numpy as np

from transfer.data.duplicates import Inspection, group_duplicates
from transfer.data.left_out import LeftOut
from transfer.data.table import ImageTable
from transfer.errors import TransferError

CONFLICT = "conflicting labels of the same image, byte for byte"
_SHOWN = 3  # groups in the note, and objects of each group


def drop_conflicts(table: ImageTable, inspection: Inspection, hidden: str = "") -> tuple[ImageTable, Inspection]:
    """Drop images whose bytes occur under several objects, with all their duplicates, and add a note that names them.

    Parameters
    ----------
    hidden : str
        A domain whose labels must not affect training. Its images stay, with an unknown object where labels conflict,
        so that they are not scored; their labels contradict no image of another domain.

    Raises
    ------
    TransferError
        No labelled image is left.
    """
    group, known = group_duplicates(inspection), table.object >= 0
    apart = np.zeros(len(table), bool)
    if hidden and hidden in table.domains:
        apart = table.domain == table.domains.index(hidden)
    dropped = _find_conflicts(table, group, known & ~apart) & ~apart
    masked = _find_conflicts(table, group, known) & known & apart
    conflicting = dropped | masked
    if not conflicting.any():
        return table, inspection
    first: defaultdict[int, dict[int, int]] = defaultdict(dict)  # of each group, the first row of each object
    for row in np.flatnonzero(_find_conflicts(table, group, known) & known).tolist():
        first[group[row]].setdefault(int(table.object[row]), row)
    places = {number: _list_places(table, list(rows.values())) for number, rows in first.items()}
    shown = [places[number] for number in dict.fromkeys(group[conflicting].tolist())]
    examples = " / ".join(shown[:_SHOWN]) + " / …" * (len(shown) > _SHOWN)
    if not (known & ~conflicting).any():
        raise TransferError(f"{table.name}: each image occurs under several objects ({examples}): give it one")
    count = int(conflicting.sum())
    what = "neither trained on nor tested on" if dropped.any() else "not scored"
    note = f"{count} images have conflicting labels, byte for byte the same ({examples}): {what}"
    values = np.where(masked, -1, table.object)
    table = replace(table, targets=table.targets | {"object": replace(table.targets["object"], values=values)})
    left_out = [
        LeftOut(str(table.paths[row]), CONFLICT, places[group[row]]) for row in np.flatnonzero(conflicting).tolist()
    ]
    table = replace(table.take(~dropped), notes=(*table.notes, note), left_out=(*table.left_out, *left_out))
    return table, inspection.take(~dropped)


def count_conflicts(table: ImageTable) -> dict[str, int]:
    """Return the number of images with conflicting labels, for result.json."""
    return {"conflicting": sum(each.reason == CONFLICT for each in table.left_out)}


def _list_places(table: ImageTable, rows: list[int]) -> str:
    named = [f"{table.paths[row]} is {table.objects[table.object[row]]}" for row in rows[:_SHOWN]]
    return "; ".join([*named, "…"] if len(rows) > _SHOWN else named)


def _find_conflicts(table: ImageTable, group: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return which rows share their bytes with `known` rows of two objects, bool (N,)."""
    least, most = np.full(group.max(initial=0) + 1, len(table.objects)), np.full(group.max(initial=0) + 1, -1)
    np.minimum.at(least, group[known], table.object[known])
    np.maximum.at(most, group[known], table.object[known])
    return (least < most)[group]
