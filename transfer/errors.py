"""Errors that users can fix: one line with what is wrong, where, and what to do."""

import difflib
from collections.abc import Iterable, Sequence


class TransferError(Exception):
    """Bad arguments or bad input. The command line prints it as one line and exits with code 2."""


class EndedEarly(TransferError):
    """Training ended early; its results so far are saved."""


class UnknownName(TransferError):
    """No policy, head kind, method or backbone of this name is registered; a plugin may register it."""


class MissingColumn(TransferError):
    """The data has no column of one of the further targets, or no value in it; `names` are those targets."""

    def __init__(self, message: str, names: Iterable[str]) -> None:
        super().__init__(message)
        self.names = tuple(names)


def did_you_mean(name: str, known: Iterable[str], limit: int = 3) -> str:
    """Return ``" (did you mean 'x'?)"`` for up to `limit` known names close to `name`, or an empty string.

    Examples
    --------
    >>> did_you_mean("linear_prob", ["linear_probe", "full"])
    " (did you mean 'linear_probe'?)"
    >>> did_you_mean("zebra", ["linear_probe", "full"])
    ''
    """
    by_lower = {k.lower(): k for k in known}
    near = difflib.get_close_matches(name.lower(), by_lower, n=limit, cutoff=0.6)
    return f" (did you mean {' or '.join(repr(by_lower[k]) for k in near)}?)" if near else ""


def list_examples(names: Sequence[str], count: int = 5) -> str:
    """Return up to `count` names for a message.

    Examples
    --------
    >>> list_examples("abc", 3), list_examples("abc", 2)
    ('a, b, c', 'a, b, …')
    """
    return ", ".join(names[:count]) + ", …" * (len(names) > count)


def get_first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or, if that is empty, the name of its class."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
