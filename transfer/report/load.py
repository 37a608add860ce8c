"""Load a run folder for a report."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from transfer.errors import TransferError
from transfer.runs.folder import UPDATE_FILE
from transfer.runtime.files import open_regular, open_text, parse_json

Rows = list[dict[str, str]]


@dataclass(frozen=True, eq=False)
class SavedRun:
    """A finished run, as read from its folder."""

    path: Path
    result: dict[str, Any]  # result.json
    metrics: list[dict[str, Any]] = field(default_factory=list)  # metrics.jsonl
    predictions: Rows = field(default_factory=list)  # predictions.csv, of all seeds one after the other
    report_data: dict[str, Any] = field(default_factory=dict)  # exhibits.json; empty if the run has none
    update: dict[str, Any] = field(default_factory=dict)  # update.json; empty if the run is no update

    @property
    def adapted(self) -> bool:
        """Whether this is a run of `transfer adapt`."""
        return "target" in self.result

    @property
    def metrics_key(self) -> str:
        """The key of the test metrics in the result."""
        return "target" if self.adapted else "test"

    @property
    def metrics_by_head(self) -> dict[str, dict[str, Any]]:
        """The test metrics of each head."""
        return self.result.get(self.metrics_key, {})

    @property
    def seed_results(self) -> list[dict[str, Any]]:
        """The result of each seed."""
        return self.result.get("seeds") or [self.result]

    def labelled_predictions(self, head: str) -> Iterator[tuple[str, str, str, float]]:
        """Yield path, true class, predicted class and its probability of each labelled test image, over all seeds."""
        for row in self.predictions:
            if row.get(head) and f"{head}_probability" in row:
                yield row["path"], row[head], row[f"{head}_predicted"], float(row[f"{head}_probability"])

    def correct(self, head: str) -> tuple[np.ndarray, np.ndarray]:
        """Return whether each labelled test image was predicted correctly (0 or 1), and its path, over all seeds."""
        known = [(true == predicted, path) for path, true, predicted, _ in self.labelled_predictions(head)]
        return np.array([r for r, _ in known], dtype=float), np.array([p for _, p in known], dtype=str)


def read_saved_run(path: Path) -> SavedRun:
    """Return the finished run in the folder `path`.

    Raises
    ------
    TransferError
        The folder holds no finished run of train, adapt or compare, or a damaged one.
    """
    file = path / "result.json"
    if not file.is_file():
        inner = " (its run is in run/)" if (path / "run" / "result.json").is_file() else ""
        raise TransferError(
            f"no result.json in {path}{inner}: a report needs a finished run of train, adapt or compare"
        )
    try:
        result = _json(file)
        if result.get("command") not in ("train", "adapt", "compare"):
            command = result.get("command")
            raise TransferError(f"{path}: a report needs a run of train, adapt or compare, not of {command}")
        report_data = path / "exhibits.json"
        lines, update = path / "metrics.jsonl", path / UPDATE_FILE
        seeds = [path / f"seed{of_seed['seed']}" for of_seed in result.get("seeds", [])]
        first, *others = [folder for folder in seeds if (folder / "predictions.csv").is_file()] or [path]
        return SavedRun(
            path,
            result,
            [parse_json(line) for line in _lines(lines)] if lines.is_file() else [],
            [row for folder in (first, *others) for row in _predictions(folder)],
            _json(report_data) if report_data.is_file() else {},
            _json(update) if update.is_file() else {},
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
