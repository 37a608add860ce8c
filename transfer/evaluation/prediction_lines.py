"""Predictions as lines of text: JSON lines or CSV."""

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from transfer.data.label_sets.cells import NO_LABEL
from transfer.runtime.escape import escape_unprintable

PredictionRow = dict[str, Any]
"""What is predicted for an image, as :func:`transfer.predict` yields it."""


def format_lines(rows: Sequence[PredictionRow], form: str, columns: Sequence[str], *, ascii_only: bool) -> list[str]:
    """Return each of `rows` as a JSON object, with all but ASCII escaped on request, or as a line of CSV.

    `columns` are the names of a row without an error, which decide the columns of CSV.
    """
    if form == "csv":
        return [_format_csv([_format_cell(name, row.get(name)) for name in [*columns, "error"]]) for row in rows]
    return [escape_unprintable(json.dumps(row, ensure_ascii=ascii_only)) + "\n" for row in rows]


def format_head(form: str, columns: Sequence[str]) -> str:
    """Return the line above those of :func:`format_lines`: the names of the columns of CSV."""
    return _format_csv([*columns, "error"]) if form == "csv" else ""


def _format_csv(cells: Sequence[Any]) -> str:
    """Return a line of CSV; a cell with a line break is quoted."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue()


def _format_cell(column: str, value: Any) -> Any:
    """Return the classes of a set, labels, or classes with their probabilities, as one cell; other values as is."""
    if not isinstance(value, list):
        return value
    if column.endswith("_top"):
        return " ".join(f"{name}:{probability:g}" for name, probability in value)
    return "|".join(" in ".join(each) if isinstance(each, list) else str(each) for each in value) or NO_LABEL[0]
