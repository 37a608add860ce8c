"""The registered head kinds, by name. Reading names, summaries and facts does not import torch."""

from typing import TypeVar

from transfer.data.target_columns import COLUMN_READERS
from transfer.errors import TransferError, UnknownName, did_you_mean
from transfer.heads.kind import HeadKind
from transfer.runtime.plugins import check_methods, load_entry_points

K = TypeVar("K", bound=type[HeadKind])

_KINDS: dict[str, HeadKind] = {}


def register_head(cls: K) -> K:
    """Register a kind of head: a class decorator.

    Its name may then stand in ``--targets COLUMN:NAME``.

    Raises
    ------
    TransferError
        The class has no name, the name is taken, or `losses` or `predictions` is not defined.

    Examples
    --------
    >>> from transfer.heads.kind import HeadKind
    >>> @register_head
    ... class Nothing(HeadKind):
    ...     summary = "predicts nothing"
    Traceback (most recent call last):
    ...
    transfer.errors.TransferError: Nothing: give the head kind a name without spaces, commas and colons
    """
    name = cls.name
    if not name or any(character in " ,:" for character in name):
        raise TransferError(f"{cls.__name__}: give the head kind a name without spaces, commas and colons")
    present = _KINDS.get(name)
    if present and (type(present).__module__, type(present).__qualname__) != (cls.__module__, cls.__qualname__):
        raise TransferError(f"{cls.__name__}: there is a head kind {name!r} already ({type(present).__name__})")
    check_methods(cls.__name__, cls)
    kind = _KINDS[name] = cls()
    COLUMN_READERS[name] = kind.read_column
    return cls


def find_head_kind(name: str) -> HeadKind:
    """Return the head kind called `name`.

    Raises
    ------
    TransferError
        No such kind is registered.
    """
    if name not in _KINDS:
        load_entry_points()
    if name not in _KINDS:
        raise UnknownName(
            f"unknown head kind {name!r}{did_you_mean(name, _KINDS)}; known: {', '.join(_KINDS)}; "
            "one of your own needs --plugin with the module that registers it"
        )
    return _KINDS[name]


def head_summaries() -> dict[str, str]:
    """Return the one-line summary of each registered head kind by name."""
    return {name: kind.summary for name, kind in _KINDS.items()}


def score_labels() -> dict[str, str]:
    """Return the name in words of every score that a registered head kind reports, by its key in result.json."""
    return {key: label for kind in _KINDS.values() for key, label in kind.score_labels.items()}
