"""Plain-text tables of results, and the lines below them."""

import re
from collections.abc import Collection, Iterable, Sequence
from statistics import fmean, stdev
from typing import Any

from transfer.runtime.escape import escape_unprintable


def text_table(head: Sequence[str], rows: Sequence[Sequence[str]], words: Collection[str] = ()) -> str:
    """Return a table whose first column, and those named in `words`, are aligned left and the others right.

    Examples
    --------
    >>> print(text_table(["policy", "object"], [["full", "0.9"], ["scratch", "0.25"]]))
    policy   object
    full        0.9
    scratch    0.25
    """
    cells_by_row = [[escape_unprintable(str(cell)) for cell in row] for row in [head, *rows]]
    widths = [max(map(len, column)) for column in zip(*cells_by_row, strict=True)]
    lefts = [i == 0 or name in words for i, name in enumerate(head)]
    lines = []
    for row in cells_by_row:
        cells = [cell.ljust(w) if left else cell.rjust(w) for cell, w, left in zip(row, widths, lefts, strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def mean_sd_text(values: Sequence[float], form: str = ".3f") -> str:
    """Return the mean and standard deviation of `values`; a single value alone, ``-`` if there is none.

    Examples
    --------
    >>> mean_sd_text([0.75, 0.25]), mean_sd_text([0.5], "+.1f"), mean_sd_text([])
    ('0.500 ± 0.354', '+0.5', '-')
    """
    if not values:
        return "-"
    return f"{fmean(values):{form}}" + (f" ± {stdev(values):{form.lstrip('+')}}" if len(values) > 1 else "")


def note_paragraph(notes: Iterable[str]) -> list[str]:
    """Return the notes as one paragraph, a line each; no paragraph if there is none."""
    lines = "\n".join(f"note: {escape_unprintable(note)}" for note in notes)
    return [lines] if lines else []


def paired_test_text(test: dict[str, Any] | None) -> str:
    """Return a paired test (:func:`transfer.evaluation.paired.paired_test`) in short; ``-`` if there is none.

    A test without a p-value is its difference and interval.

    Examples
    --------
    >>> paired_test_text({"difference": 0.012, "interval": [-0.001, 0.025], "p": 0.0731})
    '+0.012 [-0.001, +0.025] p 0.073'
    """
    if not test:
        return "-"
    low, high = test["interval"]
    p = f" p {test['p']:.2g}" if "p" in test else ""
    return f"{test['difference']:+.3f} [{low:+.3f}, {high:+.3f}]{p}"


def explain_intervals(table: str) -> str:
    """Return `table` with a line on the intervals in it, if there are any.

    Examples
    --------
    >>> print(explain_intervals("object  0.9 [0.8, 1.0]"))
    object  0.9 [0.8, 1.0]
    [ ]: 95 % interval
    """
    return f"{table}\n[ ]: 95 % interval" if re.search(r" \[[-+]?\d", table) else table
