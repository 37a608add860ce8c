"""A run folder as it was left: what a report reads."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from transfer.errors import TransferError
from transfer.runtime.files import open_regular, open_text, parse_json

Rows = list[dict[str, str]]


@dataclass(frozen=True, eq=False)
class Saved:
    """A run folder.

    Parameters
    ----------
    path : Path
    result : dict
        result.json.
    metrics : list of dict
        metrics.jsonl.
    predictions : list of dict
        predictions.csv, and after it those of further seeds.
    exhibits : dict
        exhibits.json (see :mod:`transfer.evaluation.report_data`); of an older run, nothing.
    advice : dict
        What advice the run followed, if it did.
    """

    path: Path
    result: dict[str, Any]
    metrics: list[dict[str, Any]] = field(default_factory=list)
    predictions: Rows = field(default_factory=list)
    exhibits: dict[str, Any] = field(default_factory=dict)

    @property
    def adapted(self) -> bool:
        """Whether it was learned for another domain."""
        return "target" in self.result

    @property
    def part(self) -> str:
        """Where the result has the reports on the test images."""
        return "target" if self.adapted else "test"

    @property
    def reports(self) -> dict[str, dict[str, Any]]:
        """The reports on the test images, by head."""
        return self.result.get(self.part, {})

    @property
    def each(self) -> list[dict[str, Any]]:
        """The result of each seed."""
        return self.result.get("seeds") or [self.result]

    def answers(self, head: str) -> Iterator[tuple[str, str, str, float]]:
        """Yield path, truth, answer and its probability, of a classification head, where the truth is known."""
        for row in self.predictions:
            if row.get(head) and f"{head}_probability" in row:
                yield row["path"], row[head], row[f"{head}_predicted"], float(row[f"{head}_probability"])

    def right(self, head: str) -> tuple[np.ndarray, np.ndarray]:
        """Return whether each known test image was answered rightly, and its path, over all seeds."""
        known = [(true == said, path) for path, true, said, _ in self.answers(head)]
        return np.array([r for r, _ in known], dtype=float), np.array([p for _, p in known], dtype=str)


def read(path: Path) -> Saved:
    """Return the run in the folder `path`.

    Raises
    ------
    TransferError
        No finished run of a kind that has a report, or a damaged one.
    """
    file = path / "result.json"
    if not file.is_file():
        run = " (its run is in run/)" if (path / "run" / "result.json").is_file() else ""
        raise TransferError(f"no result.json in {path}{run}: a report is of a finished run of train, adapt or compare")
    try:
        result = _json(file)
        if result.get("command") not in ("train", "adapt", "compare"):
            raise TransferError(f"{path}: a report is of a run of train, adapt or compare, not {result.get('command')}")
        exhibits = path / "exhibits.json"
        lines = path / "metrics.jsonl"
        seeds = [path / f"seed{one['seed']}" for one in result.get("seeds", [])]
        first, *others = [folder for folder in seeds if (folder / "predictions.csv").is_file()] or [path]
        return Saved(
            path,
            result,
            [parse_json(line) for line in _lines(lines)] if lines.is_file() else [],
            [row for folder in (first, *others) for row in _predictions(folder)],
            _json(exhibits) if exhibits.is_file() else {},
        )
    except (ValueError, AttributeError, KeyError) as error:
        raise TransferError(f"{path} is damaged ({error}): run it again") from error


def _json(file: Path) -> Any:
    with open_regular(file) as opened:
        return parse_json(opened.read())


def _lines(file: Path) -> list[str]:
    return [line for line in file.read_text(encoding="utf-8").split("\n") if line.strip()]


def _predictions(folder: Path) -> Rows:
    file = folder / "predictions.csv"
    if not file.is_file():
        return []
    with open_text(file) as opened:
        return list(csv.DictReader(opened))
