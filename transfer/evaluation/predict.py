"""`transfer predict`: apply a saved run to images, and write what it predicts."""

import csv
import itertools
import json
import logging
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from transfer.config.commands import PredictConfig
from transfer.data.image_paths import find_images
from transfer.data.images.batches import ImageBatches
from transfer.data.images.file_kinds import describe_left_out
from transfer.data.label_sets.cells import NO_LABEL
from transfer.data.left_out import LeftOut
from transfer.evaluation.predictions import Predictions
from transfer.evaluation.uncertainty.caution import Caution, choose_caution
from transfer.evaluation.uncertainty.record import find_uncertainty
from transfer.evaluation.uncertainty.unknown import HEAD, UnknownScore
from transfer.heads import HeadSpec
from transfer.runs import checkpoint
from transfer.runtime.device import pick_device
from transfer.runtime.escape import escape_unprintable
from transfer.runtime.files import atomic_write, open_text
from transfer.runtime.malloc import keep_freed_memory
from transfer.runtime.streams import is_unicode, is_writable

PREDICTED_AT_ONCE = 64  # images per batch

log = logging.getLogger(__name__)


def predict(
    models: checkpoint.Models,
    paths: Sequence[str],
    *,
    top: int = 5,
    skip_bad: bool = False,
    caution: Caution | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield each image's predictions, in order.

    `caution` adds sets of likely classes and unknown scores, and withholds answers.

    Yields
    ------
    dict
        ``path``; for each head with classes its name with the most likely class, ``NAME_probability`` and
        ``NAME_top``, a list of [class, probability]; for each head with several labels an image lists of these and of
        their probabilities; for each other head its value. An image that cannot be read and is skipped has ``path``
        and ``error``.
    """
    bad: dict[int, str] | None = {} if skip_bad else None
    specs = {name: spec for model in models.values() for name, spec in model.heads.specs.items()}
    for places, found, strangeness in predict_batches(models, paths, bad, caution.unknown if caution else None):
        rows: list[dict[str, Any]] = [{"path": str(paths[place])} for place in places.tolist()]
        describe_rows(rows, specs, found, strangeness, top=top, caution=caution)
        for place, row in zip(places.tolist(), rows, strict=True):
            yield {"path": row["path"], "error": bad.pop(place)} if bad and place in bad else row


def describe_rows(
    rows: Sequence[dict[str, Any]],
    specs: Mapping[str, HeadSpec],
    found: Predictions,
    strangeness: np.ndarray | None,
    *,
    top: int,
    caution: Caution | None,
) -> None:
    """Add to each of `rows` what :func:`predict` yields of its image, from predictions of the heads `specs`."""
    for name, values in found.items():
        for row, value in zip(rows, values, strict=True):
            row |= specs[name].head_kind.describe(specs[name], value, top)
    if caution:
        caution.complete(rows, specs, found, strangeness)


def predict_batches(
    models: checkpoint.Models, paths: Sequence[str], bad: dict[int, str] | None, unknown: UnknownScore | None = None
) -> Iterator[tuple[np.ndarray, Predictions, np.ndarray | None]]:
    """Yield places in `paths`, predictions by head, and rates of `unknown`, batch by batch.

    Images that cannot be read raise a TransferError, or are named in `bad`, if given, by their place; their predictions
    mean nothing.
    """
    backbone = next(iter(models.values())).backbone
    device = next(backbone.parameters()).device
    # One pass over all paths: threads decode the next images while the networks process the present ones.
    batches = ImageBatches(
        paths, backbone.preprocessing, batch_size=PREDICTED_AT_ONCE, pin=device.type == "cuda", bad=bad
    )
    with keep_freed_memory():
        for places, images in batches:
            found: Predictions = {}
            strangeness = None
            for model in models.values():
                features, outputs = model.compute(images.to(device, non_blocking=True))
                predicted = model.heads.predictions(outputs)
                found |= {name: values.cpu().numpy() for name, values in predicted.items()}
                if unknown and HEAD in outputs:
                    strangeness = unknown.rate(features, outputs[HEAD]).cpu().numpy()
            yield places.numpy(), found, strangeness


def find_and_log_images(names: Sequence[str]) -> list[str]:
    """Return the images of `names` as :func:`find_images` does; log what is left out of folders, by reason."""
    ignored: list[LeftOut] = []
    paths = find_images(names, ignored=ignored)
    for line in describe_left_out(ignored):
        log.info("left out: %s", line)
    return paths


def predict_command(config: PredictConfig) -> tuple[int, int]:
    """Write predictions to a file or to standard output; return how many images were predicted, and skipped as bad."""
    models = checkpoint.load_models(config.run, pick_device(config.device))
    paths = find_and_log_images(config.images)
    counts: Counter[str] = Counter()
    caution = choose_caution(find_uncertainty(config.run), config.coverage, config.min_confidence, config.max_unknown)
    how: Any = {"top": config.top, "skip_bad": config.on_bad_image == "skip", "caution": caution}
    rows = _count(predict(models, paths, **how), counts)
    if config.out:
        with atomic_write(config.out) as temporary, open_text(temporary, "w") as file:
            _write(rows, config.format, file.write)
    else:
        if config.format == "csv" and hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(errors="surrogateescape")  # file names that are not UTF-8 are written as their bytes
        screen = sys.stdout.isatty()
        _write(
            itertools.takewhile(lambda row: is_writable(sys.stdout), rows),
            config.format,
            lambda text: sys.stdout.write(escape_unprintable(text, "\n") if screen else text),
            ascii_only=not is_unicode(sys.stdout),
        )
    return counts["predicted"], counts["skipped"]


def _count(rows: Iterator[dict[str, Any]], counts: Counter[str]) -> Iterator[dict[str, Any]]:
    """Yield `rows`; count those that are predicted and those that are skipped."""
    for row in rows:
        counts["skipped" if "error" in row else "predicted"] += 1
        yield row


def _write(rows: Iterator[dict[str, Any]], form: str, write: Any, *, ascii_only: bool = False) -> None:
    """Write `rows` as JSON lines, with all but ASCII escaped on request, or CSV."""
    if form == "csv":
        _write_csv(rows, write)
        return
    for row in rows:
        write(escape_unprintable(json.dumps(row, ensure_ascii=ascii_only)) + "\n")


def _write_csv(rows: Iterator[dict[str, Any]], write: Any) -> None:
    """Write `rows` as CSV. Its columns are those of the first row without an error."""
    skipped: list[dict[str, Any]] = []
    first: list[dict[str, Any]] = []
    for row in rows:
        (skipped if "error" in row else first).append(row)
        if first:
            break
    fields = [*dict.fromkeys([*(first or [{"path": ""}])[0], "error"])]
    file: Any = SimpleNamespace(write=write)
    writer = csv.DictWriter(file, fields, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for row in itertools.chain(skipped, first, rows):
        writer.writerow({k: _format_cell(k, v) if isinstance(v, list) else v for k, v in row.items()})


def _format_cell(column: str, values: list[Any]) -> str:
    """Return the classes of a set, labels, or classes with their probabilities, as one cell."""
    if column.endswith("_top"):
        return " ".join(f"{name}:{probability:g}" for name, probability in values)
    return "|".join(" in ".join(value) if isinstance(value, list) else str(value) for value in values) or NO_LABEL[0]
