"""`transfer predict` and `transfer evaluate`: a saved run on images."""

import contextlib
import csv
import io
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from transfer.config.commands import EvaluateConfig, PredictConfig
from transfer.config.serialise import to_dict
from transfer.config.train import CacheConfig
from transfer.data.duplicates import drop_bad, inspect
from transfer.data.image_paths import image_files
from transfer.data.images.batches import ImageBatches
from transfer.data.sets.load import load_table
from transfer.data.table import ONE, ImageTable, Target
from transfer.errors import TransferError
from transfer.evaluation.ensemble import Exam, check_alike, mean
from transfer.evaluation.predictions import judge, per_domain
from transfer.feature_cache import TrunkCache
from transfer.heads.heads import HeadSpec
from transfer.runs import checkpoint
from transfer.runtime.device import get_versions, pick_device
from transfer.runtime.escape import escape_unprintable
from transfer.runtime.files import atomic_write, open_text, write_json
from transfer.runtime.malloc import keep_freed_memory

BATCH = 64


def predict(
    models: checkpoint.Models, paths: Sequence[str], *, top: int = 5, skip_bad: bool = False
) -> Iterator[dict[str, Any]]:
    """Yield each image's answers, in order.

    Yields
    ------
    dict
        ``path``; for each softmax or binary head its name with the most likely class, ``NAME_probability`` and
        ``NAME_top``, a list of [class, probability]; for each regression head its value. A bad image that is skipped
        has ``path`` and ``error``.
    """
    backbone = next(iter(models.values())).backbone
    device = next(backbone.parameters()).device
    bad: dict[int, str] | None = {} if skip_bad else None
    # One pass over all paths: threads decode the next images while the networks see these.
    batches = ImageBatches(paths, backbone.preprocessing, batch_size=BATCH, pin=device.type == "cuda", bad=bad)
    with keep_freed_memory():
        for places, images in batches:
            rows: list[dict[str, Any]] = [{"path": str(paths[place])} for place in places.tolist()]
            for model in models.values():
                for name, values in model.predict(images.to(device, non_blocking=True)).items():
                    spec = model.heads.specs[name]
                    for row, value in zip(rows, values.cpu().numpy(), strict=True):
                        row |= _words(spec, value, top)
            for place, row in zip(places.tolist(), rows, strict=True):
                yield {"path": row["path"], "error": bad.pop(place)} if bad and place in bad else row


def _words(spec: HeadSpec, value: Any, top: int) -> dict[str, Any]:
    if spec.kind == "regression":
        return {spec.name: float(value)}
    p = np.asarray(value, dtype=float)
    p = np.array([1 - p, p]) if spec.kind == "binary" else p
    best = np.argsort(-p, kind="stable")[: max(top, 1)]
    listed = [[spec.classes[i], round(float(p[i]), 6)] for i in best]
    return {spec.name: listed[0][0], f"{spec.name}_probability": listed[0][1], f"{spec.name}_top": listed}


def predict_command(config: PredictConfig) -> int:
    """Predict as `config` says, to a file or standard output; return how many images were skipped as bad."""
    models = checkpoint.load(config.run, pick_device(config.device))
    rows = predict(models, image_files(config.images), top=config.top, skip_bad=config.on_bad_image == "skip")
    if config.out:
        with atomic_write(config.out) as temporary, open_text(temporary, "w") as file:
            return _write(rows, config.format, file.write)
    if config.format == "csv" and isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # file names that are no text go out as the bytes they are
    screen = sys.stdout.isatty()
    return _write(
        rows, config.format, lambda text: sys.stdout.write(escape_unprintable(text, "\n") if screen else text)
    )


def _write(rows: Iterator[dict[str, Any]], form: str, write: Any) -> int:
    skipped, writer = 0, None
    for row in rows:
        skipped += "error" in row
        if form == "json":
            write(escape_unprintable(json.dumps(row, ensure_ascii=False)) + "\n")
            continue
        flat = {k: " ".join(f"{c}:{p:g}" for c, p in v) if isinstance(v, list) else v for k, v in row.items()}
        if writer is None:
            fields = [*dict.fromkeys([*flat, "error"])]
            writer = csv.DictWriter(
                type("Out", (), {"write": staticmethod(write)})(),
                fields,
                lineterminator="\n",
                extrasaction="ignore",
            )
            writer.writeheader()
        writer.writerow(flat)
    return skipped


def align(table: ImageTable, models: checkpoint.Models) -> ImageTable:
    """Return `table` with its labels as indices of the models' classes; unknown classes become -1, and a note."""
    aligned, notes = {}, list(table.notes)
    for model in models.values():
        for name, spec in model.heads.specs.items():
            given = table.targets.get(name)
            if given is None:
                empty = np.full(len(table), np.nan) if spec.kind == "regression" else np.full(len(table), -1)
                aligned[name] = Target(empty, spec.kind, spec.classes)
            elif spec.kind == "regression":
                aligned[name] = given
            else:
                place = {label: i for i, label in enumerate(spec.classes)}
                index = np.array([*(place.get(label, -1) for label in given.classes), -1])
                strange = [c for c in given.classes if c not in (*place, *([ONE] if name == "domain" else []))]
                if strange:
                    some = ", ".join(strange[:3])
                    notes.append(f"{name}: {len(strange)} classes that the model does not know ({some}) do not count")
                aligned[name] = Target(index[given.values], spec.kind, spec.classes)
    blank = Target(np.full(len(table), -1), "softmax", ())
    return replace(table, targets={"object": blank, "domain": blank} | aligned, notes=tuple(notes))


def evaluate(config: EvaluateConfig) -> dict[str, Any]:
    """Measure a saved run on its own test images or on others; return the result, and write it where `config` says.

    Other data with a test split is measured on that, else on all its images; a note says if some of them are test
    images of the run and others not, as it may have learned from these. Several runs answer as an ensemble.

    Raises
    ------
    TransferError
        No run there, no such data, or not one label that the model knows; runs that cannot answer together.
    """
    began = time.perf_counter()
    runs = (config.run, *config.more)
    members = [checkpoint.load(run, pick_device(config.device)) for run in runs]
    check_alike(runs, members)
    models = members[0]
    if config.data is None:
        given = _common_test([run if run.is_dir() else run.parent for run in runs])
    else:
        given = load_table(
            config.data,
            config.data_root,
            [n for m in models.values() for n in m.heads.specs if n not in ("object", "domain")],
        )
        held = given.split == "test"
        given = given.take(held) if held.any() else given
        given = replace(given, notes=(*given.notes, *_maybe_learned(runs, given)))
    cache = TrunkCache(CacheConfig(cache=config.cache))
    table, inspection = drop_bad(given, inspect(given, store=cache.store), config.on_bad_image)
    table = align(table, models)
    if not any(t.known.any() for t in table.targets.values()):
        raise TransferError(f"{table.name}: not one image has a label that {config.run} knows")
    exam = Exam(table, inspection.sha256, np.arange(len(table)), cache, config.view, BATCH)
    answers = mean([exam.answers(member) for member in members])
    result = {
        "command": "evaluate",
        "config": to_dict(config),
        "versions": get_versions(),
        "seconds": {"total": round(time.perf_counter() - began, 3)},
        "test": judge(table, answers),
        "per_domain": per_domain(table, answers),
        "notes": list(table.notes),
    }
    if config.out:
        write_json(config.out, result)
    return result


def _common_test(runs: Sequence[Path]) -> ImageTable:
    """Return the test images of the first of `runs`, if they are those of all: others may have learned from them."""
    first, *others = (_own_test(run) for run in runs)
    for run, table in zip(runs[1:], others, strict=True):
        if set(table.paths) != set(first.paths):
            raise TransferError(
                f"{run} and {runs[0]} were tested on different images, and may have learned from each other's: "
                "train them on one split (--split-seed), or give --data"
            )
    return first


def _own_test(run: Path) -> ImageTable:
    """Return the run's own test images, as its predictions.csv lists them."""
    file = run / "predictions.csv"
    if not file.is_file():
        raise TransferError(f"{run} has no predictions.csv to say which images it was tested on: give --data")
    try:
        with open_text(file) as opened:
            rows = list(csv.DictReader(opened, strict=True))
        return _listed(run, rows)
    except (KeyError, ValueError, TypeError, OSError, csv.Error) as error:
        raise TransferError(f"{file} does not list predictions ({error!r}): give --data") from error


def _maybe_learned(runs: Sequence[Path], table: ImageTable) -> Iterator[str]:
    """Yield a note for each of `runs` if `table` has test images of its set, and more: perhaps what it learned from."""
    for run in runs:
        with contextlib.suppress(TransferError):
            tested = {os.path.realpath(path) for path in _own_test(run if run.is_dir() else run.parent).paths}
            met = sum(os.path.realpath(path) in tested for path in table.paths)
            if 0 < met < len(table):
                yield (
                    f"{met} of these images are test images of {run}, which may have learned from the other "
                    f"{len(table) - met}: without --data it is measured on its test images alone"
                )


def _listed(run: Path, rows: list[dict[str, str]]) -> ImageTable:
    if not rows:
        raise TransferError(f"{run} was trained without test images: give --data")
    names = [key.removesuffix("_predicted") for key in rows[0] if key.endswith("_predicted")]
    listed = {}
    for name in names:
        column = [row[name] for row in rows]
        if f"{name}_probability" in rows[0]:
            classes = tuple(sorted(set(column) - {""}))
            values = np.array([classes.index(v) if v else -1 for v in column], dtype=np.int64)
            listed[name] = Target(values, "softmax", classes)
        else:
            listed[name] = Target(np.array([float(v) for v in column]), "regression")
    empty = np.full(len(rows), "")
    return ImageTable(np.array([row["path"] for row in rows]), listed, empty, empty, str(run))
