"""The run folder: config.json, metrics.jsonl, model.safetensors, predictions.csv, result.json, exhibits.json."""

import csv
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

from transfer.errors import TransferError
from transfer.files import whole, write_json, write_text
from transfer.learn.events import Events

FILES = ("config.json", "metrics.jsonl", "model.safetensors", "predictions.csv", "result.json")
OURS = (*FILES, "exhibits.json", "report.html")

ADVICE = "advice.json"

FREE = ("out", "overwrite", "resume", "final", "workers", "report")  # settings that a resumed run may change


class RunFolder:
    """A folder that one run owns.

    Parameters
    ----------
    path : Path
    config : dict
        Goes to config.json.
    overwrite : bool
        Replace a run that is there.
    resume : bool
        Go on with a run that is there, of the same config; without one, begin.
    later : bool
        Wait for the first line, or for :meth:`begin`: till then nothing is written and no earlier run replaced, so that
        what turns out not to be possible costs none.
    tensorboard : bool
        Write each line of metrics into event files, too.

    Raises
    ------
    TransferError
        It holds a run already and is neither to be replaced nor resumed, one of another config, or other things; or
        it cannot be written; no tensorboard.
    """

    def __init__(
        self,
        path: Path,
        config: dict[str, Any],
        *,
        overwrite: bool = False,
        resume: bool = False,
        later: bool = False,
        outer: "RunFolder | None" = None,
        tensorboard: bool = False,
    ) -> None:
        self.path, self._config, self._outer, self._begun = path, config, outer, False
        self._events = Events(path) if tensorboard else None
        self._held: list[str] = []
        if resume and (path / "config.json").is_file():
            self._resume(config)
            self._begun = True
            return
        if outer is None:
            self._held = self._replaced(path, overwrite)
        if not later:
            self.begin()

    def inner(self, name: str, config: dict[str, Any]) -> "RunFolder":
        """Return the folder of a run within this one, which begins when it does."""
        tensorboard = self._events is not None
        return RunFolder(self.path / name, config, later=True, outer=self, tensorboard=tensorboard)

    @classmethod
    def _replaced(cls, path: Path, overwrite: bool) -> list[str]:
        """Return the names of what a run at `path` would replace, if it may and can."""
        if path.exists() and not path.is_dir():
            raise TransferError(f"--out {path} is a file: name a folder")
        held = sorted(p.name for p in path.iterdir()) if path.is_dir() else []
        foreign = [name for name in held if not cls._ours(path / name)]
        if foreign:
            raise TransferError(
                f"--out {path} holds other things ({', '.join(foreign[:3])}): name a new or empty folder"
            )
        if held and not overwrite:
            raise TransferError(f"--out {path} already holds a run: name another folder, or say --overwrite")
        there = next(place for place in (path, *path.absolute().parents) if place.exists())
        if not there.is_dir() or not os.access(there, os.W_OK):
            raise TransferError(f"cannot write the run folder {path}: {there} is no folder that may be written to")
        return held

    def begin(self) -> None:
        """Write config.json, in place of the run that was there.

        Raises
        ------
        TransferError
            It cannot be written.
        """
        if self._begun:
            return
        if self._outer:
            self._outer.begin()
        path = self.path
        try:
            path.mkdir(parents=True, exist_ok=True)
            for name in self._held:
                shutil.rmtree(path / name) if (path / name).is_dir() else (path / name).unlink()
            write_json(path / "config.json", self._config)
            (path / "metrics.jsonl").touch()
        except OSError as error:
            raise TransferError(f"cannot write the run folder {path}: {error.strerror or error}") from error
        self._begun = True

    @classmethod
    def _ours(cls, path: Path) -> bool:
        """Return whether `path` is a run's file (also half of one, from a run that was killed), or an inner run folder
        with nothing else in it: one per seed or policy.
        """
        if path.is_dir():
            return (path / "config.json").is_file() and all(map(cls._ours, path.iterdir()))
        drawn = r"(map|layers|curves|surfaces|landscape|rates)\.png"
        if re.fullmatch(rf"snapshot\d+\.safetensors|{drawn}|events\.out\.tfevents\..*", path.name):
            return True
        return path.name in (*OURS, ADVICE) or (path.name.startswith(".") and path.suffix == ".part")

    def _resume(self, config: dict[str, Any]) -> None:
        """Check that the run there is of `config`, and cut off a line that was half written when it was killed."""
        before, now = _flat(json.loads((self.path / "config.json").read_text(encoding="utf-8"))), _flat(config)
        differ = [name for name in {**before, **now} if before.get(name) != now.get(name)]
        differ = [name.rpartition(".")[2] for name in differ if name.rpartition(".")[2] not in FREE]
        if differ:
            raise TransferError(
                f"--resume: the run in {self.path} has another {', '.join(differ[:5])}; give what it was started "
                "with, or name another folder"
            )
        lines = self.path / "metrics.jsonl"
        content = lines.read_bytes() if lines.exists() else b""
        if not content.endswith(b"\n") or not lines.exists():
            write_text(lines, content[: content.rfind(b"\n") + 1].decode())

    def metrics(self) -> list[dict[str, Any]]:
        """Return the lines of metrics.jsonl.

        Raises
        ------
        TransferError
            A line is not JSON.
        """
        texts = (self.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        try:
            return [json.loads(text) for text in texts]
        except json.JSONDecodeError as error:
            raise TransferError(f"{self.path / 'metrics.jsonl'} is damaged: start anew with --overwrite") from error

    def metric(self, line: dict[str, Any]) -> None:
        """Append a line to metrics.jsonl."""
        self.begin()
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        if self._events:
            self._events.line(line)

    def gather(self, parts: list[Path]) -> None:
        """Take the metrics of all `parts` (inner run folders); of the first, model, predictions, exhibits and map."""
        lines = []
        for part in parts:
            for text in (part / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
                lines.append(json.dumps({"run": part.name} | json.loads(text), ensure_ascii=False) + "\n")
        write_text(self.path / "metrics.jsonl", "".join(lines))
        more = [name for name in ("exhibits.json", "map.png") if (parts[0] / name).exists()]
        for name in ("model.safetensors", "predictions.csv", *more):
            with whole(self.path / name) as temporary:
                shutil.copyfile(parts[0] / name, temporary)

    def result(self, result: dict[str, Any]) -> None:
        """Write result.json."""
        write_json(self.path / "result.json", result)

    def exhibits(self, exhibits: dict[str, Any]) -> None:
        """Write exhibits.json."""
        write_text(self.path / "exhibits.json", json.dumps(exhibits, ensure_ascii=False) + "\n")

    def predictions(self, rows: list[dict[str, Any]]) -> None:
        """Write predictions.csv: one row per test image."""
        with (
            whole(self.path / "predictions.csv") as temporary,
            temporary.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.DictWriter(file, list(rows[0]) if rows else ["path"])
            writer.writeheader()
            writer.writerows(rows)


def _flat(config: Any, name: str = "") -> dict[str, Any]:
    """Return the settings of a nested config by dotted name."""
    if not isinstance(config, dict):
        return {name: config}
    return {k: v for key, value in config.items() for k, v in _flat(value, f"{name}.{key}").items()}
