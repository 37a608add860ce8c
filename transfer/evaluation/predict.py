"""`transfer predict`: apply a saved run to images, and write what it predicts."""

import hashlib
import logging
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from transfer.config.commands import PredictConfig
from transfer.data.image_paths import ImagePath, find_images, iterate_images
from transfer.data.images.batches import StreamedBatch, stream_batches
from transfer.data.images.decode import BadImage
from transfer.data.images.file_kinds import describe_left_out
from transfer.data.images.read import DECODER
from transfer.data.left_out import LeftOut, LeftOutCounts
from transfer.errors import TransferError
from transfer.evaluation.prediction_file import PredictionFile
from transfer.evaluation.prediction_lines import PredictionRow, format_head, format_lines
from transfer.evaluation.predictions import Predictions
from transfer.evaluation.uncertainty.caution import Caution, choose_caution
from transfer.evaluation.uncertainty.record import find_uncertainty
from transfer.evaluation.uncertainty.unknown import HEAD
from transfer.heads import HeadSpec
from transfer.runs import checkpoint
from transfer.runs.folder import MODEL_FILE, UNCERTAINTY_FILE
from transfer.runtime import signals
from transfer.runtime.device import get_versions, move_to, pick_device
from transfer.runtime.escape import escape_unprintable
from transfer.runtime.malloc import keep_freed_memory
from transfer.runtime.streams import is_unicode, is_writable

PREDICTED_AT_ONCE = 64  # images per batch

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PredictedBatch:
    """Rows of those images of a batch that had none yet, and the names of all values that a row has."""

    rows: list[PredictionRow]
    columns: list[str]


def predict(
    models: checkpoint.Models,
    paths: Sequence[str],
    *,
    top: int = 5,
    skip_bad: bool = False,
    caution: Caution | None = None,
) -> Iterator[PredictionRow]:
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
    batches = group_paths(map(str, paths))
    for batch in predict_batches(models, batches, top=top, skip_bad=skip_bad, caution=caution):
        yield from batch.rows


def group_paths(paths: Iterable[ImagePath | None], *, prompt: bool = False) -> Iterator[StreamedBatch | None]:
    """Yield batches of `paths`; None for None, which says that the next path is not there yet.

    A batch is then yielded before it is full if `prompt`.
    """
    coming: list[ImagePath] = []
    for path in paths:
        if path is not None:
            coming.append(path)
        if coming and (len(coming) == PREDICTED_AT_ONCE or (path is None and prompt)):
            yield StreamedBatch(coming)
            coming = []
        if path is None:
            yield None
    if coming:
        yield StreamedBatch(coming)


def predict_batches(
    models: checkpoint.Models,
    batches: Iterable[StreamedBatch | None],
    *,
    top: int,
    skip_bad: bool,
    caution: Caution | None,
) -> Iterator[PredictedBatch]:
    """Yield the rows of :func:`predict` of each of `batches`; see :func:`transfer.data.images.batches.stream_batches`.

    The network computes whole batches, also the images before the first that is wanted, as the last digits of an
    image's values may depend on the size of its batch.
    """
    backbone = next(iter(models.values())).backbone
    device = next(backbone.parameters()).device
    specs = {name: spec for model in models.values() for name, spec in model.heads.specs.items()}
    unknown = caution.unknown if caution else None
    how: Any = {"batch_size": PREDICTED_AT_ONCE, "pin": device.type == "cuda", "skip_bad": skip_bad}
    with keep_freed_memory():
        for batch in stream_batches(batches, backbone.preprocessing, **how):
            found: Predictions = {}
            strangeness = None
            for model in models.values():
                features, outputs = model.compute(move_to(batch.images, device))
                predicted = model.heads.predictions(outputs)
                found |= {name: values.cpu().numpy() for name, values in predicted.items()}
                if unknown and HEAD in outputs:
                    strangeness = unknown.rate(features, outputs[HEAD]).cpu().numpy()
            rows: list[PredictionRow] = [{"path": path} for path in batch.paths]
            describe_rows(rows, specs, found, strangeness, top=top, caution=caution)
            columns = list(rows[0])
            for place, error in batch.bad.items():
                rows[place] = {"path": batch.paths[place], "error": error}
            yield PredictedBatch(rows[batch.start :], columns)


def describe_rows(
    rows: Sequence[PredictionRow],
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


def find_and_log_images(names: Sequence[str]) -> list[ImagePath]:
    """Return the images of `names` as :func:`find_images` does; log what is left out of folders, by reason."""
    ignored: list[LeftOut] = []
    paths = find_images(names, ignored=ignored)
    _log_left_out(describe_left_out(ignored))
    return paths


def _log_left_out(lines: Sequence[str]) -> None:
    for line in lines:
        log.info("left out: %s", line)


def predict_command(config: PredictConfig) -> tuple[int, int]:
    """Write predictions to a file or to standard output; return how many images were predicted, and skipped as bad."""
    models = checkpoint.load_models(config.run, pick_device(config.device), config.engine)
    caution = choose_caution(find_uncertainty(config.run), config.coverage, config.min_confidence, config.max_unknown)
    skip_bad, left_out = config.on_bad_image == "skip", LeftOutCounts()
    how: Any = {"top": config.top, "skip_bad": skip_bad, "caution": caution}
    paths = iterate_images(config.images, ignored=left_out, keep_missing=skip_bad)
    try:
        if config.out:
            return _write_file(config, models, paths, how)
        return _print_lines(config, predict_batches(models, group_paths(paths, prompt=True), **how))
    except BadImage as error:
        raise TransferError(f"{error} (repair it, or skip such images with --on-bad-image skip)") from error
    finally:
        _log_left_out(left_out.describe())


def _write_file(
    config: PredictConfig, models: checkpoint.Models, paths: Iterator[ImagePath | None], how: dict[str, Any]
) -> tuple[int, int]:
    """Write the rows of `paths` to ``config.out``, of which those that are there already are not computed."""
    assert config.out
    with ExitStack() as stack:
        stack.enter_context(signals.defer_stop_signals())
        settings = _describe_settings(config, models)
        options: Any = {"batch_size": PREDICTED_AT_ONCE, "resume": config.resume}
        file = stack.enter_context(PredictionFile(config.out, settings, **options))
        if file.bad and not how["skip_bad"]:
            raise TransferError(
                f"--resume: {file.part} was made with --on-bad-image skip and names {file.bad:,} bad images: add it"
            )
        bar = stack.enter_context(_show_progress(initial=file.rows))
        for batch in predict_batches(models, _list_unanswered(file, paths), **how):
            lines = format_lines(batch.rows, config.written_format, batch.columns, ascii_only=False)
            file.write(lines, ["error" in row for row in batch.rows], format_head(config.written_format, batch.columns))
            bar.update(len(lines))
            signals.raise_if_stop_requested()
        file.finish()
        return file.rows - file.bad, file.bad


def _list_unanswered(file: PredictionFile, paths: Iterable[ImagePath | None]) -> Iterator[StreamedBatch | None]:
    """Yield batches of `paths` of which `file` lacks rows."""
    for batch in group_paths(paths):
        signals.raise_if_stop_requested()
        if batch:
            batch.start = file.count_answered(batch.paths)
            if batch.start == len(batch.paths):
                continue
        yield batch


def _describe_settings(config: PredictConfig, models: checkpoint.Models) -> dict[str, Any]:
    """Return what decides the rows, besides the images."""
    folder = config.run if config.run.is_dir() else config.run.parent
    files = [folder / MODEL_FILE, folder / UNCERTAINTY_FILE] if config.run.is_dir() else [config.run]
    digest = hashlib.sha256()
    for file in [*files, *([folder / UNCERTAINTY_FILE] if config.run.name == MODEL_FILE else [])]:
        digest.update(_hash_file(file))
    names = ("top", "coverage", "min_confidence", "max_unknown")
    device = next(next(iter(models.values())).parameters()).device.type
    versions = {"versions of packages": [get_versions(), DECODER]}
    how = {"device": device, "engine": [model.engine for model in models.values()]}
    return (
        {"run": digest.hexdigest(), "format": config.written_format}
        | how
        | {n: getattr(config, n) for n in names}
        | versions
    )


def _hash_file(file: Path) -> bytes:
    if not file.is_file():
        return b""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").digest()


def _print_lines(config: PredictConfig, batches: Iterator[PredictedBatch]) -> tuple[int, int]:
    """Write rows to standard output as they come, until its reader ends."""
    if config.written_format == "csv" and hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="surrogateescape")  # file names that are not UTF-8 are written as their bytes
    screen, ascii_only = sys.stdout.isatty(), not is_unicode(sys.stdout)
    total = bad = 0
    with _show_progress(hidden=screen) as bar:
        for batch in batches:
            lines = format_lines(batch.rows, config.written_format, batch.columns, ascii_only=ascii_only)
            text = "".join(lines) if total else "".join([format_head(config.written_format, batch.columns), *lines])
            sys.stdout.write(escape_unprintable(text, "\n") if screen else text)
            sys.stdout.flush()
            if not is_writable(sys.stdout):
                break
            total, bad = total + len(lines), bad + sum("error" in row for row in batch.rows)
            bar.update(len(lines))
    return total - bad, bad


def _show_progress(*, initial: int = 0, hidden: bool = False) -> Any:
    return tqdm(desc="predicting", unit="image", initial=initial, disable=hidden or None, delay=2, leave=False)
