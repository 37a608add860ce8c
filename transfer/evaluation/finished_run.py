"""A run that is finished or saved, for notebooks and scripts: a small table, predictions, and the page of the run."""

import html
import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from transfer.config.shared import Device, Engine
from transfer.data.pixel_files import image_files
from transfer.errors import TransferError
from transfer.evaluation.label_free.expected_accuracy import ExpectedAccuracy
from transfer.evaluation.label_free.images import NO_REFERENCE_ADAPTED, expect_accuracy_of_files
from transfer.evaluation.predict import find_and_log_images, predict
from transfer.evaluation.uncertainty.caution import choose_caution
from transfer.evaluation.uncertainty.record import Uncertainty, find_uncertainty
from transfer.runs import checkpoint
from transfer.runs.seeds import score_text
from transfer.runtime.device import pick_device
from transfer.runtime.files import read_json

_CELL = "text-align: left; padding: 0.2em 0.8em"


@dataclass(repr=False)
class FinishedRun:
    """A finished run; a notebook shows it as a small table.

    Parameters
    ----------
    result : dict
        As in result.json.
    models : dict of str to TransferModel
        Of the first seed: ``models[""]``, or one for each head where heads are separate.
    saved_in : Path, optional
        The run folder that it was loaded from (default: the one that the result names).
    uncertainty : Uncertainty, optional
        What prediction sets, unknown scores and expected accuracies are made from; None if the run had no validation
        images.
    """

    result: dict[str, Any]
    models: checkpoint.Models
    saved_in: Path | None = field(default=None, kw_only=True)
    uncertainty: Uncertainty | None = field(default=None, kw_only=True)

    @property
    def folder(self) -> Path | None:
        """The run folder; None if nothing was saved."""
        out = self.saved_in or self.result["config"]["run"]["out"]
        return Path(out) if out else None

    def predict(
        self,
        images: Any,
        *,
        top: int = 5,
        skip_bad: bool = False,
        coverage: float | None = None,
        min_confidence: float = 0.0,
        max_unknown: float = 1.0,
    ) -> list[dict[str, Any]]:
        """Return the predictions for `images` in order, as `transfer predict` prints them.

        Parameters
        ----------
        images : path, PIL image or ndarray (H, W, 3); or a sequence of one of these; or ndarray (N, H, W, 3)
            Paths: image files, folders, globs or tar shards. Arrays: RGB, uint8 or floats in [0, 1].
        top : int
            Number of classes listed with their probabilities.
        skip_bad : bool
            Return ``path`` and ``error`` for an image that cannot be read, instead of raising.
        coverage : float, optional
            Add sets of likely classes, ``NAME_set``, that contain the true class this often, such as 0.9, for images
            like those of the training set.
        min_confidence : float
            Answer None where the probability of the likeliest class is lower.
        max_unknown : float
            Answer None for the object where ``object_unknown``, the share of known images that are less strange, is
            higher, such as 0.99.

        Returns
        -------
        list of dict
            See :func:`transfer.predict`. The ``path`` of an image in memory is None.

        Raises
        ------
        TransferError
            A path without images, an image that cannot be read, or images in another form; or the run has no
            prediction sets or unknown score.
        """
        caution = choose_caution(self.uncertainty, coverage, min_confidence, max_unknown)
        how: Any = {"top": top, "skip_bad": skip_bad, "caution": caution}
        with _find_paths(images) as (paths, in_files):
            rows = list(predict(self.models, paths, **how))
            return rows if in_files else [row | {"path": None} for row in rows]

    def expected_accuracy(self, images: Any, head: str = "object") -> ExpectedAccuracy:
        """Return how often the model is expected to be right about `images`, which need no labels.

        Parameters
        ----------
        images : as in :meth:`predict`, at least ten
        head : str
            One that chooses one of several classes, other than ``"domain"``.

        Returns
        -------
        ExpectedAccuracy
            Its ``accuracy`` with the interval from ``low`` to ``high``, the accuracy on ``held_out`` images of the
            run, and an ``alarm`` if the images differ from the training images and the accuracy is lower.

        Raises
        ------
        TransferError
            No readable images, too few, or a run or head without what this is made from.
        """
        references = self.uncertainty.accuracy if self.uncertainty else {}
        if self.result.get("command") == "adapt" and not references:
            raise TransferError(NO_REFERENCE_ADAPTED)
        with _find_paths(images) as (paths, _):
            return expect_accuracy_of_files(self.models, paths, references, head)

    def report(self, out: str | os.PathLike[str] | None = None) -> Path:
        """Write the page of the run to `out` (default: report.html in the run folder), and return its path.

        Raises
        ------
        TransferError
            The run has no folder.
        """
        if not self.folder:
            raise TransferError("the run was not saved, and its page shows saved files: train with RunConfig(out=...)")
        # By name, since the room of pages lies above this one; nothing in the package calls this method.
        return importlib.import_module("transfer").write_report(self.folder, out=out)

    def summary(self) -> list[tuple[str, str]]:
        """Return names and values of the table: test scores of each head, policy, seconds and folder."""
        result, rows = self.result, []
        parts = {"test": "test"} if "test" in result else {"source_only": "target, source only", "target": "target"}
        for part, title in parts.items():
            for head, report in result[part].items():
                for key, name in _MAIN_SCORES.items():
                    if key in report:
                        rows.append((f"{title} {name}, {head}", score_text(result, head, key, part)))
                if not report.get("n"):
                    rows.append((f"{title}, {head}", "not measured: no test image has a label"))
        rows = rows or [("test", "no test images")]
        policy, seconds = result["policy"], result["seconds"]
        trained = f"{policy['name']}, {policy['trained_parameters']:,} parameters trained"
        where = str(self.folder) if self.folder else "not saved"
        return [
            *rows,
            ("backbone", result["backbone"]["name"]),
            ("policy", trained),
            ("seconds", f"{seconds['total']:.1f}"),
            ("folder", where),
        ]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({'; '.join(f'{name}: {value}' for name, value in self.summary())})"

    def _repr_html_(self) -> str:
        cells = [tuple(map(html.escape, row)) for row in self.summary()]
        rows = "".join(
            f'<tr><th style="{_CELL}">{name}</th><td style="{_CELL}">{value}</td></tr>' for name, value in cells
        )
        return f"<table><tbody>{rows}</tbody></table>"


def load_run(run: str | os.PathLike[str], *, device: Device = "auto", engine: Engine | None = None) -> FinishedRun:
    """Return a saved run, ready to predict.

    Parameters
    ----------
    run : path
        Run folder of `transfer train` or `transfer adapt`.
    device : str
        Where to compute: ``"auto"`` (CUDA, then MPS, then the CPU), or a device of torch.
    engine : str, optional
        What runs the frozen layers (default: as the run): ``"auto"``, ``"torch"``, ``"onnxruntime"``,
        ``"openvino"``, ``"compile"``, or ``"int8"`` for a run that was trained with it.

    Returns
    -------
    FinishedRun
        Its ``result``, its ``models``, and the methods ``predict(images)``, ``expected_accuracy(images)`` and
        ``report()``.

    Raises
    ------
    TransferError
        No finished run is there, or it is damaged.

    Examples
    --------
    >>> run = load_run("runs/flowers")  # doctest: +SKIP
    >>> run.predict("photos/today.jpg")[0]["object"]  # doctest: +SKIP
    'daisy'
    """
    folder = Path(run).expanduser()
    models = checkpoint.load_models(folder, pick_device(device), engine)
    file = folder / "result.json"
    if not file.is_file():
        raise TransferError(f"{folder} has no result.json: give the folder of a finished run")
    return FinishedRun(read_json(file), models, saved_in=folder, uncertainty=find_uncertainty(folder))


@contextmanager
def _find_paths(images: Any) -> Iterator[tuple[list[str], bool]]:
    """Yield the paths of `images`, in any form that :meth:`FinishedRun.predict` takes, and whether they were files."""
    if isinstance(images, str | os.PathLike | Image.Image) or getattr(images, "ndim", 0) == 3:
        images = [images]
    images = images if isinstance(images, np.ndarray) else list(images)
    if all(isinstance(image, str | os.PathLike) for image in images):
        yield find_and_log_images([os.fspath(image) for image in images]), True
        return
    with image_files(images) as files:
        yield files.tolist(), False


_MAIN_SCORES = {"accuracy": "accuracy", "calibration_error": "calibration error", "map": "mAP", "r2": "R²"}
_MAIN_SCORES |= {"mae": "MAE"}
