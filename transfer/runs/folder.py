"""The run folder: config, metrics, model, predictions, result, exhibits, and a model card."""

import csv
import json
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transfer.config.train import RunConfig
from transfer.errors import TransferError
from transfer.runs.model_card import MARKER, render_model_card
from transfer.runs.tensorboard import TensorboardWriter
from transfer.runtime import lock
from transfer.runtime.escape import escape_unprintable
from transfer.runtime.files import atomic_write, open_regular, open_text, parse_json, read_json, write_json, write_text
from transfer.runtime.lock import FolderLock

FILES = ("config.json", "metrics.jsonl", "model.safetensors", "predictions.csv", "result.json")
OURS = (*FILES, "exhibits.json", "report.html")

ADVICE = "advice.json"
CARD = "README.md"

STATES = "states"  # where a run that is not done keeps where it is

# Settings that a resumed run may change: they change no result.
FREE = {"out", "overwrite", "resume", "checkpoint_minutes", "final", "workers", "cache", "cache_gb"}
FREE |= {"report", "tensorboard"}


class RunFolder:
    """A folder that one run owns, in one process at a time: from when it begins until its result is written.

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
        Wait for the first line, or for :meth:`start`: till then nothing is written and no earlier run replaced, so that
        what turns out not to be possible costs none.
    tensorboard : bool
        Write each line of metrics into event files, too.

    Raises
    ------
    TransferError
        It holds a run already and is neither to be replaced nor resumed, one of another config, one that another
        process is at work on, or other things; or it cannot be written; no tensorboard.
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
        self._overwrite = overwrite
        self._lock: FolderLock | None = None
        self._events = TensorboardWriter(path) if tensorboard else None
        self._inner: list[RunFolder] = []
        self.resumed = resume and (path / "config.json").is_file()
        if (
            resume
            and path.is_dir()
            and all(file.suffix == ".part" or file.name == lock.LOCK_FILE for file in path.iterdir())
        ):
            self._overwrite = overwrite = True  # killed before it had written anything
        if self.resumed:
            self._lock = FolderLock(path)
            self._resume(config)
            self._begun = True
            return
        if outer is None and self._replaced(path, overwrite):
            FolderLock(path).release()  # is it free?
        if not later:
            self.start()

    def inner(self, name: str, config: dict[str, Any]) -> "RunFolder":
        """Return the folder of a run within this one, which begins when it does, and is resumed if this one is."""
        how: Any = {"resume": self.resumed, "tensorboard": self._events is not None}
        self._inner.append(RunFolder(self.path / name, config, later=True, outer=self, **how))
        return self._inner[-1]

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, *raised: object) -> None:
        self.release()

    @property
    def finished_result(self) -> dict[str, Any] | None:
        """The result of a resumed run that is finished."""
        file = self.path / "result.json"
        return read_json(file) if self.resumed and file.is_file() else None

    @classmethod
    def _replaced(cls, path: Path, overwrite: bool) -> list[str]:
        """Return the names of what a run at `path` would replace, if it may and can."""
        if path.exists() and not path.is_dir():
            raise TransferError(f"--out {path} is a file: name a folder")
        held = sorted(p.name for p in path.iterdir() if p.name != lock.LOCK_FILE) if path.is_dir() else []
        foreign = [name for name in held if not cls._ours(path / name)]
        if foreign:
            raise TransferError(
                f"--out {path} holds other things ({', '.join(foreign[:3])}): name a new or empty folder"
            )
        if held and not overwrite and not {"result.json", ADVICE} & set(held):
            raise TransferError(
                f"--out {path} already holds a run, unfinished: go on with it by --resume, or say --overwrite"
            )
        if held and not overwrite:
            raise TransferError(f"--out {path} already holds a run: name another folder, or say --overwrite")
        there = next(place for place in (path, *path.absolute().parents) if place.exists())
        if not there.is_dir() or not os.access(there, os.W_OK):
            raise TransferError(f"cannot write the run folder {path}: {there} is no folder that may be written to")
        return held

    def start(self) -> None:
        """Write config.json, in place of the run that was there.

        Raises
        ------
        TransferError
            It cannot be written.
        """
        if self._begun:
            return
        if self._outer:
            self._outer.start()
        path = self.path
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = FolderLock(path)
            held = self._replaced(path, self._overwrite) if self._outer is None else []
            for name in sorted(held, key=lambda name: name == "config.json"):  # which says what the rest belongs to
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
        if path.is_dir() and path.name == STATES:
            return all(file.suffix in (".safetensors", ".part") and file.is_file() for file in path.iterdir())
        if path.is_dir():
            return (path / "config.json").is_file() and all(map(cls._ours, path.iterdir()))
        drawn = r"(map|layers|curves|surfaces|landscape|rates)\.png"
        if re.fullmatch(rf"snapshot\d+\.safetensors|{drawn}|events\.out\.tfevents\..*", path.name):
            return True
        if path.name == CARD:  # of all names the likeliest to be another's
            return MARKER in path.read_text(encoding="utf-8", errors="replace")
        return path.name in (*OURS, ADVICE, lock.LOCK_FILE) or (path.name.startswith(".") and path.suffix == ".part")

    def _resume(self, config: dict[str, Any]) -> None:
        """Check that the run there is of `config`, and remove what was half written when it was killed."""
        before, now = _flat(read_json(self.path / "config.json")), _flat(config)
        differ = [name for name in {**before, **now} if before.get(name) != now.get(name)]
        differ = [name.rpartition(".")[2] for name in differ if name.rpartition(".")[2] not in FREE]
        if differ:
            raise TransferError(
                f"--resume: the run in {self.path} has another {', '.join(differ[:5])}; give what it was started "
                "with, or name another folder"
            )
        for part in self.path.glob(".*.part"):
            part.unlink(missing_ok=True)
        lines = self.path / "metrics.jsonl"
        content = lines.read_bytes() if lines.is_file() else b""
        if not content.endswith(b"\n") or not lines.is_file():
            with atomic_write(lines) as temporary:
                temporary.write_bytes(content[: content.rfind(b"\n") + 1])

    def read_metrics(self, needs: Sequence[str] = ()) -> list[dict[str, Any]]:
        """Return the lines of metrics.jsonl, each with the values that it `needs`.

        Raises
        ------
        TransferError
            A line is not what :meth:`append_metrics` wrote.
        """
        try:
            with open_regular(self.path / "metrics.jsonl") as file:
                lines = [parse_json(text) for text in file]
            if not all(isinstance(line, dict) and line.keys() >= set(needs) for line in lines):
                raise ValueError("a line lacks something")
            return lines
        except (ValueError, OSError) as error:
            raise TransferError(f"{self.path / 'metrics.jsonl'} is damaged: start anew with --overwrite") from error

    def reset_metrics(self) -> None:
        """Begin metrics.jsonl anew, for a resumed run that tells all its lines again."""
        if self.resumed:
            write_text(self.path / "metrics.jsonl", "")

    def append_metrics(self, line: dict[str, Any]) -> None:
        """Append a line to metrics.jsonl.

        Raises
        ------
        TransferError
            It cannot be written.
        """
        self.start()
        lines = self.path / "metrics.jsonl"
        try:
            with lines.open("a", encoding="utf-8") as file:
                file.write(escape_unprintable(json.dumps(line, ensure_ascii=False)) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise TransferError(f"cannot write {lines}: {error.strerror or error}") from error
        if self._events:
            self._events.line(line)

    def merge_inner_runs(self, parts: list[Path]) -> None:
        """Take the metrics of all `parts` (inner run folders); of the first, model, predictions, exhibits and map."""
        lines = []
        for part in parts:
            for text in (part / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
                lines.append(json.dumps({"run": part.name} | json.loads(text), ensure_ascii=False) + "\n")
        write_text(self.path / "metrics.jsonl", "".join(lines))
        more = [name for name in ("exhibits.json", "map.png") if (parts[0] / name).exists()]
        for name in ("model.safetensors", "predictions.csv", *more):
            with atomic_write(self.path / name) as temporary:
                shutil.copyfile(parts[0] / name, temporary)

    def write_result(self, result: dict[str, Any]) -> None:
        """Write a model's card and result.json, with which the run is done: its states go, and the folder is free."""
        if result.get("command") in ("train", "adapt"):
            with open_text(self.path / "predictions.csv") as file:
                write_text(self.path / CARD, render_model_card(result, list(csv.DictReader(file))))
        write_json(self.path / "result.json", result)
        shutil.rmtree(self.path / STATES, ignore_errors=True)
        self.release()

    def release(self) -> None:
        """Let other processes have the folder, and those within it."""
        for inner in self._inner:
            inner.release()
        if self._lock:
            self._lock.release()

    def write_report_data(self, exhibits: dict[str, Any]) -> None:
        """Write exhibits.json."""
        write_text(self.path / "exhibits.json", json.dumps(exhibits, ensure_ascii=False) + "\n")

    def write_predictions(self, rows: list[dict[str, Any]]) -> None:
        """Write predictions.csv: one row per test image."""
        with (
            atomic_write(self.path / "predictions.csv") as temporary,
            open_text(temporary, "w") as file,
        ):
            writer = csv.DictWriter(file, list(rows[0]) if rows else ["path"])
            writer.writeheader()
            writer.writerows(rows)


def refuse_resume(run: RunConfig, command: str) -> None:
    """Refuse ``--resume`` for a command that is too short, or has no single course, to go on with.

    Raises
    ------
    TransferError
        It was asked for.
    """
    if run.resume:
        raise TransferError(f"--resume: transfer {command} only runs from its start; say --overwrite to do so again")


def _flat(config: Any, name: str = "") -> dict[str, Any]:
    """Return the settings of a nested config by dotted name."""
    if not isinstance(config, dict):
        return {name: config}
    return {k: v for key, value in config.items() for k, v in _flat(value, f"{name}.{key}").items()}
