"""The run folder: config, metrics, model, predictions, result, report data and model card."""

import csv
import json
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transfer.config.serialise import complete_old_config
from transfer.config.train import RunConfig
from transfer.data.left_out import LeftOut
from transfer.errors import TransferError
from transfer.runs.model_card import MARKER, render_model_card
from transfer.runs.tensorboard import TensorboardWriter
from transfer.runtime import lock
from transfer.runtime.escape import escape_unprintable
from transfer.runtime.files import atomic_write, open_regular, open_text, parse_json, read_json, write_json, write_text
from transfer.runtime.lock import FolderLock

MODEL_FILE = "model.safetensors"
RESULT_FILES = ("config.json", "metrics.jsonl", MODEL_FILE, "predictions.csv", "result.json")
LEFT_OUT_FILE = "left_out.csv"
UNCERTAINTY_FILE = "uncertainty.safetensors"
IMAGES_FILE = "images.csv"
UPDATE_FILE = "update.json"
RUN_FILES = (*RESULT_FILES, "exhibits.json", "report.html", LEFT_OUT_FILE, UNCERTAINTY_FILE, IMAGES_FILE, UPDATE_FILE)

ADVICE_FILE = "advice.json"
FINDINGS_FILE = "findings.json"  # of an inspected data set
MODEL_CARD_FILE = "README.md"
STATES_FOLDER = "states"  # resumable states of an unfinished run

# Settings that a resumed run may change, as they do not affect the result.
RESUME_MAY_CHANGE = {"out", "overwrite", "resume", "checkpoint_minutes", "final", "workers", "cache", "cache_gb"}
RESUME_MAY_CHANGE |= {"minutes", "report", "tensorboard", "plugin"}


class RunFolder:
    """The folder of a run, locked by one process from its start until its result is written.

    `config` is written to config.json. With `overwrite`, an existing run is replaced. With `resume`, a run of the same
    config is resumed, or a new one started if there is none. With `later`, nothing is written and no earlier run
    replaced before the first line or :meth:`start`, so that an invalid command destroys nothing. With `tensorboard`,
    each line of metrics is written to event files as well.

    Raises
    ------
    TransferError
        The folder holds a run that is neither replaced nor resumed, a run of another config, a run in use by another
        process, or other files; it cannot be written; or tensorboard is not installed.
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
        self.path, self._config, self._outer, self._started = path, config, outer, False
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
            self._overwrite = overwrite = True  # killed before anything was written
        if self.resumed:
            self._lock = FolderLock(path)
            self._resume(config)
            self._started = True
            return
        if outer is None and self._replaced(path, overwrite):
            FolderLock(path).release()  # raises if another process holds it
        if not later:
            self.start()

    def inner(self, name: str, config: dict[str, Any]) -> "RunFolder":
        """Return the folder of a run inside this one; it is resumed if this one is."""
        options: Any = {"resume": self.resumed, "tensorboard": self._events is not None}
        self._inner.append(RunFolder(self.path / name, config, later=True, outer=self, **options))
        return self._inner[-1]

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, *raised: object) -> None:
        self.release()

    @property
    def finished_result(self) -> dict[str, Any] | None:
        """The result of a resumed run that is already finished, else None."""
        file = self.path / "result.json"
        return read_json(file) if self.resumed and file.is_file() else None

    @classmethod
    def _replaced(cls, path: Path, overwrite: bool) -> list[str]:
        """Return the names of the files that a run at `path` replaces; raise if it may not or cannot."""
        if path.exists() and not path.is_dir():
            raise TransferError(f"--out {path} is a file: name a folder")
        held = sorted(p.name for p in path.iterdir() if p.name != lock.LOCK_FILE) if path.is_dir() else []
        foreign = [name for name in held if not cls._ours(path / name)]
        if foreign:
            names = ", ".join(foreign[:3])
            raise TransferError(f"--out {path} holds other files ({names}): name a new or empty folder")
        if held and not overwrite:
            if {"result.json", ADVICE_FILE} & set(held):
                found, advice = "a run", "name another folder"
            else:
                found, advice = "an unfinished run", "resume it with --resume"
            raise TransferError(f"--out {path} already holds {found}: {advice}, or replace it with --overwrite")
        parent = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
        if not parent.is_dir() or not os.access(parent, os.W_OK):
            raise TransferError(f"cannot write the run folder {path}: {parent} is not a writable folder")
        return held

    def start(self) -> None:
        """Write config.json, replacing an earlier run; raise a TransferError if the folder cannot be written."""
        if self._started:
            return
        if self._outer:
            self._outer.start()
        path = self.path
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = FolderLock(path)
            held = self._replaced(path, self._overwrite) if self._outer is None else []
            for name in sorted(held, key=lambda name: name == "config.json"):  # last, as it identifies the rest
                shutil.rmtree(path / name) if (path / name).is_dir() else (path / name).unlink()
            write_json(path / "config.json", self._config)
            (path / "metrics.jsonl").touch()
        except OSError as error:
            raise TransferError(f"cannot write the run folder {path}: {error.strerror or error}") from error
        self._started = True

    @classmethod
    def _ours(cls, path: Path) -> bool:
        """Return whether `path` is a file of a run (also a partial one), or the folder of an inner run."""
        if path.is_dir() and path.name == STATES_FOLDER:
            return all(file.suffix in (".safetensors", ".part") and file.is_file() for file in path.iterdir())
        if path.is_dir():
            return (path / "config.json").is_file() and all(map(cls._ours, path.iterdir()))
        figures = r"(map|layers|curves|surfaces|landscape|rates)\.png"
        if re.fullmatch(rf"snapshot\d+\.safetensors|{figures}|events\.out\.tfevents\..*", path.name):
            return True
        if path.name == MODEL_CARD_FILE:  # a README.md may belong to somebody else
            return MARKER in path.read_text(encoding="utf-8", errors="replace")
        partial = path.name.startswith(".") and path.suffix == ".part"
        return partial or path.name in (*RUN_FILES, ADVICE_FILE, lock.LOCK_FILE)

    def _resume(self, config: dict[str, Any]) -> None:
        """Check that the existing run has the same config, and remove partial files of a killed process."""
        if differ := find_differing_options(self.path, config):
            raise TransferError(
                f"--resume: the run in {self.path} has another {', '.join(differ[:5])}; use the options it was "
                "started with, or name another folder"
            )
        for part in self.path.glob(".*.part"):
            part.unlink(missing_ok=True)
        lines = self.path / "metrics.jsonl"
        content = lines.read_bytes() if lines.is_file() else b""
        if not content.endswith(b"\n") or not lines.is_file():
            with atomic_write(lines) as temporary:
                temporary.write_bytes(content[: content.rfind(b"\n") + 1])

    def read_metrics(self, needs: Sequence[str] = ()) -> list[dict[str, Any]]:
        """Return the lines of metrics.jsonl; raise a TransferError if one is damaged or lacks a key of `needs`."""
        try:
            with open_regular(self.path / "metrics.jsonl") as file:
                lines = [parse_json(text) for text in file]
            if not all(isinstance(line, dict) and line.keys() >= set(needs) for line in lines):
                raise ValueError("a line lacks a key")
            return lines
        except (ValueError, OSError) as error:
            raise TransferError(f"{self.path / 'metrics.jsonl'} is damaged: start over with --overwrite") from error

    def reset_metrics(self) -> None:
        """Empty metrics.jsonl; a resumed run writes all its lines again."""
        if self.resumed:
            write_text(self.path / "metrics.jsonl", "")

    def append_metrics(self, line: dict[str, Any]) -> None:
        """Append a line to metrics.jsonl; raise a TransferError if the file cannot be written."""
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
            self._events.write_line(line)

    def merge_inner_runs(self, parts: list[Path]) -> None:
        """Merge the metrics of the inner runs `parts`; copy model, predictions, report data and map of the first."""
        lines = []
        for part in parts:
            for text in (part / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
                lines.append(json.dumps({"run": part.name} | json.loads(text), ensure_ascii=False) + "\n")
        write_text(self.path / "metrics.jsonl", "".join(lines))
        optional = ("exhibits.json", "map.png", LEFT_OUT_FILE, UNCERTAINTY_FILE)
        more = [name for name in optional if (parts[0] / name).exists()]
        for name in (MODEL_FILE, "predictions.csv", *more):
            with atomic_write(self.path / name) as temporary:
                shutil.copyfile(parts[0] / name, temporary)

    def write_result(self, result: dict[str, Any]) -> None:
        """Write the model card and result.json, which finishes the run; remove its states and release the folder."""
        if result.get("command") in ("train", "adapt"):
            with open_text(self.path / "predictions.csv") as file:
                write_text(self.path / MODEL_CARD_FILE, render_model_card(result, list(csv.DictReader(file))))
        write_json(self.path / "result.json", result)
        shutil.rmtree(self.path / STATES_FOLDER, ignore_errors=True)
        self.release()

    def release(self) -> None:
        """Release the lock of this folder and of the inner ones."""
        for inner in self._inner:
            inner.release()
        if self._lock:
            self._lock.release()

    def write_report_data(self, report_data: dict[str, Any]) -> None:
        """Write exhibits.json."""
        write_text(self.path / "exhibits.json", json.dumps(report_data, ensure_ascii=False) + "\n")

    def write_left_out(self, files: Sequence[LeftOut]) -> None:
        """Write left_out.csv, with path, reason and place of each file that is not used; nothing if there is none."""
        if not files:
            return
        with atomic_write(self.path / LEFT_OUT_FILE) as temporary, open_text(temporary, "w") as file:
            csv.writer(file).writerows([LeftOut._fields, *files])

    def write_predictions(self, rows: list[dict[str, Any]]) -> None:
        """Write predictions.csv: one row per test image."""
        with atomic_write(self.path / "predictions.csv") as temporary, open_text(temporary, "w") as file:
            writer = csv.DictWriter(file, list(rows[0]) if rows else ["path"])
            writer.writeheader()
            writer.writerows(rows)


def find_differing_options(path: Path, config: dict[str, Any]) -> list[str]:
    """Return the options of `config` that differ from those of the run at `path` and affect its result."""
    before, now = _flat(complete_old_config(read_json(path / "config.json"))), _flat(config)
    # Any other option that the version of the run did not have yet is taken as it is now.
    differ = [name.rpartition(".")[2] for name, value in before.items() if now.get(name) != value]
    return [name for name in differ if name not in RESUME_MAY_CHANGE]


def refuse_resume(run: RunConfig, command: str) -> None:
    """Raise a TransferError if ``--resume`` is set; `command` cannot be resumed."""
    if run.resume:
        raise TransferError(f"--resume: transfer {command} cannot be resumed; run it again with --overwrite")


def _flat(config: Any, name: str = "") -> dict[str, Any]:
    """Return the settings of a nested config by dotted name."""
    if not isinstance(config, dict):
        return {name: config}
    return {k: v for key, value in config.items() for k, v in _flat(value, f"{name}.{key}").items()}
