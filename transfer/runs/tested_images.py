"""The test images of a run, as its predictions.csv lists them."""

import contextlib
import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from transfer.data.label_sets.combinations import use_label_sets
from transfer.data.table import ImageTable, make_softmax_target
from transfer.errors import TransferError
from transfer.heads import HeadSpec
from transfer.runtime.files import open_text


def read_tested_images(runs: Sequence[Path], specs: Sequence[HeadSpec]) -> ImageTable:
    """Return the test images of the run folders `runs`, with the true labels of the heads `specs`.

    Raises
    ------
    TransferError
        A run has none, or they were tested on different images.
    """
    first, *others = (_read_test_rows(run) for run in runs)
    for run, rows in zip(runs[1:], others, strict=True):
        if _paths(rows) != _paths(first):
            raise TransferError(
                f"{run} and {runs[0]} were tested on different images, and one may have been trained on the other's: "
                "train them on one split (--split-seed), or give --data"
            )
    return _table_of(runs[0], first, specs)


def note_training_images(runs: Sequence[Path], table: ImageTable) -> Iterator[str]:
    """Yield a note for each run that has some images of `table`, but not all, in its test split."""
    for run in runs:
        with contextlib.suppress(TransferError):
            tested = {os.path.realpath(path) for path in _paths(_read_test_rows(run if run.is_dir() else run.parent))}
            met = sum(os.path.realpath(path) in tested for path in table.paths)
            if 0 < met < len(table):
                yield (
                    f"{met} of these images are test images of {run}, which may have been trained on the other "
                    f"{len(table) - met}: without --data it is evaluated on its test images alone"
                )


def _read_test_rows(run: Path) -> list[dict[str, str]]:
    """Return the lines of the run's predictions.csv."""
    file = run / "predictions.csv"
    if not file.is_file():
        raise TransferError(f"{run} has no predictions.csv, which lists the run's test images: give --data")
    try:
        with open_text(file) as opened:
            rows = list(csv.DictReader(opened, strict=True))
        _paths(rows)
    except (KeyError, ValueError, TypeError, OSError, csv.Error) as error:
        raise TransferError(f"{file} does not list predictions ({error!r}): give --data") from error
    if not rows:
        raise TransferError(f"{run} was trained without test images: give --data")
    return rows


def _paths(rows: Sequence[Mapping[str, str]]) -> set[str]:
    return {str(np.str_(row["path"])) for row in rows}


def _table_of(run: Path, rows: list[dict[str, str]], specs: Sequence[HeadSpec]) -> ImageTable:
    """Return the test images that predictions.csv lists, with the true labels of the heads `specs`."""
    targets = {}
    try:
        for spec in specs:
            if f"{spec.name}_predicted" in rows[0]:
                column = [row[spec.name] or "" for row in rows]
                targets[spec.name] = spec.head_kind.read_truths(column)
        if not targets:
            raise ValueError("no column of a head of the run")
        empty = np.full(len(rows), "")
        blank = make_softmax_target(empty.tolist())
        targets = {"object": blank, "domain": blank} | targets
        return use_label_sets(ImageTable(np.array([row["path"] for row in rows]), targets, empty, empty, str(run)))
    except (KeyError, ValueError, TypeError) as error:
        raise TransferError(f"{run / 'predictions.csv'} does not list predictions ({error!r}): give --data") from error
