"""Names of classes, domains and groups that are one name written in several ways: ``Circle`` and ``circle``."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from decimal import Decimal

import numpy as np

from transfer.data.table import ImageTable, Target, make_softmax_target, parse_number
from transfer.errors import list_examples

ALIKE = "differ only in case, spaces, unicode form or number format"
_INVISIBLE = "\u200b\ufeff"  # zero-width space and byte order mark
_SPACES = re.compile(r"(?<![0-9]) +| +(?![0-9])")  # "lot 1 12" is not "lot 11 2"


def get_name_key(name: str) -> str | Decimal:
    """Return what spellings of one name have in common: numbers by value, texts without case, spaces, unicode form.

    A single letter keeps its case, which is all that tells ``A`` from ``a`` in sets of letters.

    Examples
    --------
    >>> get_name_key("Back  Pack ") == get_name_key("backpack"), get_name_key("1.0") == get_name_key("01")
    (True, True)
    >>> get_name_key("A") == get_name_key("a")
    False
    """
    text = _SPACES.sub("", _tidy(name))
    number = parse_number(text)
    if number is not None or len(text) == 1:
        return text if number is None else number
    return unicodedata.normalize("NFC", text.casefold())


def _tidy(name: str) -> str:
    visible = name.translate(dict.fromkeys(map(ord, _INVISIBLE)))
    return " ".join(unicodedata.normalize("NFC", visible).split()) or name


def find_alike(names: Iterable[str]) -> list[list[str]]:
    """Return the groups of `names` that are one name written in several ways, in the order of their first spelling."""
    groups = defaultdict(list)
    for name in dict.fromkeys(names):
        groups[get_name_key(name)].append(name)
    return [group for group in groups.values() if len(group) > 1]


def match_names(given: Sequence[str], known: Sequence[str]) -> list[int]:
    """Return the place in `known` of each of `given`, by its spelling or else by its key; -1 if none or several fit.

    Examples
    --------
    >>> match_names(["circle", "Square", "star"], ["Circle", "Square"])
    [0, 1, -1]
    """
    exact = {name: place for place, name in enumerate(known)}
    by_key: dict[str | Decimal, int] = {}
    for name, place in exact.items():
        key = get_name_key(name)
        by_key[key] = -1 if key in by_key else place
    return [exact[name] if name in exact else by_key.get(get_name_key(name), -1) for name in given]


def describe_matches(given: Sequence[str], known: Sequence[str]) -> str:
    """Return which of the `given` names are read as other spellings in `known`; an empty string if none is.

    Examples
    --------
    >>> describe_matches(["circle", "Square", "star"], ["Circle", "Square"])
    "'circle' is read as 'Circle'"
    """
    pairs = [(name, known[i]) for name, i in zip(given, match_names(given, known), strict=True) if i >= 0]
    return list_examples([f"{name!r} is read as {other!r}" for name, other in pairs if name != other])


def merge_spellings(table: ImageTable) -> ImageTable:
    """Return `table` with classes, domains and groups that differ only in spelling merged, and a note on each kind.

    The commonest spelling is the name; of equally common ones, the first without stray spaces or combining accents.
    """
    targets: dict[str, Target] = {}
    notes: list[str] = []
    for name, target in table.targets.items():
        targets[name] = _merge(target, name, "domain" if name == "domain" else "class", notes)
        upper = [each for each in target.classes if len(each) == 1 and each.lower() != each]
        if pairs := [f"{each!r} and {each.lower()!r}" for each in upper if each.lower() in target.classes]:
            notes.append(f"{name}: {list_examples(pairs, 3)} are two: the case of single letters is respected")
    group = table.group
    if group.any():
        groups = _merge(make_softmax_target(group.tolist()), "group", "group", notes)
        group = np.array([*groups.classes, ""])[groups.values]
    both = (*table.notes, *notes), (*table.choices, *notes)
    return replace(table, targets=targets, group=group, notes=both[0], choices=both[1])


def _merge(target: Target, column: str, what: str, notes: list[str]) -> Target:
    """Return `target` with alike classes merged; `notes` gets a line on them."""
    alike = find_alike(target.classes)
    if not alike:
        return target
    several = target.values.ndim == 2
    known = np.nonzero(target.values == 1)[1] if several else target.values[target.known]
    sizes = np.bincount(known, minlength=len(target.classes))
    counts = dict(zip(target.classes, sizes.tolist(), strict=True))
    names, lines = {name: name for name in target.classes}, []
    for spellings in alike:
        common = max(spellings, key=lambda name: (counts[name], name == _tidy(name)))
        names |= dict.fromkeys(spellings, common)
        lines.append(f"{', '.join(f'{name!r} ({counts[name]:,})' for name in spellings)} are {common!r}")
    notes.append(f"{column}: names that {ALIKE} are one {what}: {'; '.join(lines[:5])}{'; …' * (len(lines) > 5)}")
    classes = tuple(name for name in target.classes if names[name] == name)
    if several:
        return replace(target, values=_merge_columns(target, names, classes), classes=classes)
    place = np.array([*(classes.index(names[name]) for name in target.classes), -1])
    return replace(target, values=place[target.values], classes=classes)


def _merge_columns(target: Target, names: dict[str, str], classes: tuple[str, ...]) -> np.ndarray:
    """Return for each of `classes` 1 where one of its spellings is shown, else -1 where one is unknown, else 0."""
    columns = []
    for name in classes:
        of_name = target.values[:, [names[other] == name for other in target.classes]]
        columns.append(np.where((of_name == 1).any(1), 1, of_name.min(1)))
    return np.stack(columns, 1).astype(target.values.dtype)
