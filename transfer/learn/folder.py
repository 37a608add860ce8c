"""The run folder: config.json, metrics.jsonl, model.safetensors, predictions.csv, result.json."""

import csv
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

from transfer.errors import TransferError
from transfer.files import whole, write_json, write_text

OURS = ("config.json", "metrics.jsonl", "model.safetensors", "predictions.csv", "result.json", "report.html")


class RunFolder:
    """A folder that one run owns.

    Raises
    ------
    TransferError
        It holds a run already and `overwrite` is false, holds other things, or cannot be written.
    """

    def __init__(self, path: Path, config: dict[str, Any], *, overwrite: bool = False) -> None:
        self.path = path
        if path.exists() and not path.is_dir():
            raise TransferError(f"--out {path} is a file: name a folder")
        held = sorted(p.name for p in path.iterdir()) if path.is_dir() else []
        foreign = [name for name in held if not self._ours(path / name)]
        if foreign:
            raise TransferError(
                f"--out {path} holds other things ({', '.join(foreign[:3])}): name a new or empty folder"
            )
        if held and not overwrite:
            raise TransferError(f"--out {path} already holds a run: name another folder, or say --overwrite")
        try:
            path.mkdir(parents=True, exist_ok=True)
            for name in held:
                shutil.rmtree(path / name) if (path / name).is_dir() else (path / name).unlink()
            write_json(path / "config.json", config)
            (path / "metrics.jsonl").touch()
        except OSError as error:
            raise TransferError(f"cannot write the run folder {path}: {error.strerror or error}") from error

    @classmethod
    def _ours(cls, path: Path) -> bool:
        """Return whether `path` is a run's file (also half of one, from a run that was killed), or an inner run folder
        with nothing else in it: one per seed or policy.
        """
        if path.is_dir():
            return (path / "config.json").is_file() and all(map(cls._ours, path.iterdir()))
        if re.fullmatch(r"snapshot\d+\.safetensors|(map|layers|curves|surfaces)\.png", path.name):
            return True
        return path.name in OURS or (path.name.startswith(".") and path.suffix == ".part")

    def metric(self, line: dict[str, Any]) -> None:
        """Append a line to metrics.jsonl."""
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def gather(self, parts: list[Path]) -> None:
        """Take the metrics of all `parts` (inner run folders), and the model, predictions and map of the first."""
        lines = []
        for part in parts:
            for text in (part / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
                lines.append(json.dumps({"run": part.name} | json.loads(text), ensure_ascii=False) + "\n")
        write_text(self.path / "metrics.jsonl", "".join(lines))
        drawn = ("map.png",) if (parts[0] / "map.png").exists() else ()
        for name in ("model.safetensors", "predictions.csv", *drawn):
            with whole(self.path / name) as temporary:
                shutil.copyfile(parts[0] / name, temporary)

    def result(self, result: dict[str, Any]) -> None:
        """Write result.json."""
        write_json(self.path / "result.json", result)

    def predictions(self, rows: list[dict[str, Any]]) -> None:
        """Write predictions.csv: one row per test image."""
        with (
            whole(self.path / "predictions.csv") as temporary,
            temporary.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.DictWriter(file, list(rows[0]) if rows else ["path"])
            writer.writeheader()
            writer.writerows(rows)
