"""Labels of other images as indices of a run's classes."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from transfer.data.class_names import describe_matches
from transfer.data.table import DEFAULT_DOMAIN, ImageTable, Target
from transfer.errors import list_examples
from transfer.heads import HeadSpec
from transfer.runs.tested_images import read_tested_images


def align_labels(table: ImageTable, specs: Sequence[HeadSpec], *, own: bool = False) -> ImageTable:
    """Return `table` with its labels as indices of the heads' classes; unknown classes become -1, and a note.

    Classes that are spelled otherwise are matched, and a note says so: see `transfer.data.class_names`. With `own`, the
    images are test images of the run: their other classes come last, so that each counts as an error, as in the run.
    """
    aligned, notes = {}, list(table.notes)
    for spec in specs:
        given = table.targets.get(spec.name)
        if given is None or (spec.head_kind.has_classes and not given.known.any()):
            aligned[spec.name] = spec.head_kind.unknown_target(spec, len(table))
            continue
        aligned[spec.name], unknown = spec.head_kind.align(given, spec)
        if own and unknown and spec.head_kind.has_classes:
            classes = (*spec.classes, *unknown)
            place = np.array([*(classes.index(label) for label in given.classes), -1])
            aligned[spec.name] = Target(place[given.values], spec.kind, classes)
            notes.append(f"{spec.name}: no training image showed {list_examples(unknown)}, each such image is an error")
            continue
        if read := describe_matches(given.classes, spec.classes):
            notes.append(f"{spec.name}: {read}")
        unknown = [label for label in unknown if spec.name != "domain" or label != DEFAULT_DOMAIN]
        if unknown:
            notes.append(
                f"{spec.name}: images of classes that the model does not know ({list_examples(unknown)}) do not count"
            )
    blank = Target(np.full(len(table), -1))
    return replace(table, targets={"object": blank, "domain": blank} | aligned, notes=tuple(notes))


def format_column_targets(specs: Sequence[HeadSpec]) -> list[str]:
    """Return the ``--targets`` that read the columns of further heads: classes by name, numbers by kind."""
    further = [spec for spec in specs if spec.name not in ("object", "domain")]
    return [spec.name if spec.head_kind.has_classes else f"{spec.name}:{spec.kind}" for spec in further]


def load_test_table(run: Path, specs: Sequence[HeadSpec]) -> ImageTable:
    """Return the test images of the run in this folder, with labels as indices of the heads' classes.

    Raises
    ------
    TransferError
        The run has none.
    """
    return align_labels(read_tested_images([run], specs), specs, own=True)
