"""What `train` and `adapt` return, for notebooks and scripts: a small table, predictions, and the page of the run."""

import html
import importlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transfer.data.image_paths import find_images
from transfer.errors import TransferError
from transfer.evaluation.evaluate import predict
from transfer.runs import checkpoint
from transfer.runs.seeds import score_text

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
    """

    result: dict[str, Any]
    models: checkpoint.Models

    @property
    def folder(self) -> Path | None:
        """The run folder; None if nothing was saved."""
        out = self.result["config"]["run"]["out"]
        return Path(out) if out else None

    def predict(
        self, images: str | os.PathLike[str] | Iterable[str | os.PathLike[str]], *, top: int = 5, skip_bad: bool = False
    ) -> list[dict[str, Any]]:
        """Return the predictions for `images` in order, as `transfer predict` prints them.

        Parameters
        ----------
        images : path or sequence of paths
            Image files, folders, globs or tar shards.
        top : int
            Number of classes listed with their probabilities.
        skip_bad : bool
            Return ``path`` and ``error`` for an image that cannot be read, instead of raising.

        Returns
        -------
        list of dict
            See :func:`transfer.predict`.
        """
        names = [images] if isinstance(images, str | os.PathLike) else images
        return list(predict(self.models, find_images([os.fspath(name) for name in names]), top=top, skip_bad=skip_bad))

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


_MAIN_SCORES = {"accuracy": "accuracy", "calibration_error": "calibration error", "r2": "R²", "mae": "MAE"}
