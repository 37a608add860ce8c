"""Resumable states of a run: the last two of each unfinished part, and the outcome of each finished part."""

import contextlib
import json
import logging
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save, save_file

from transfer.runs.folder import STATES_FOLDER
from transfer.runs.packing import Tensors, pack, unpack
from transfer.runtime import distributed
from transfer.runtime.files import atomic_write

MIN_TIME_BETWEEN_SAVES = 20  # times the duration of the last save; save early only after that

STATE_VERSION = "2"  # changes whenever states of earlier versions cannot be resumed

log = logging.getLogger(__name__)


class Inputs(Protocol):
    """The inputs of a run."""

    now: Any

    def check(self, before: Any) -> None:
        """Raise if the inputs differ from those `before`."""


class RunStates:
    """The states of a run, in its folder `run`; they are removed when the result is written.

    Two states are `minutes` apart. `begin` is called before anything is written, such as
    :meth:`transfer.runs.folder.RunFolder.start`. Existing states belong to this run if it is `resumed`.
    """

    def __init__(
        self, run: Path, minutes: float, *, begin: Callable[[], None] | None = None, resumed: bool = True
    ) -> None:
        self.path, self.minutes, self.resumed, self._begin = run / STATES_FOLDER, minutes, resumed, begin
        self._origin: Any = None

    def of(self, origin: Inputs) -> None:
        """Record the inputs with the first state; raise if those of a resumed run have changed."""
        self._origin = origin.now
        if not self.resumed or not distributed.is_rank_zero():
            return
        try:
            with contextlib.suppress(FileNotFoundError):
                origin.check(read_state(self._file))
        except DamagedState:
            self._file.unlink(missing_ok=True)  # written again with the next state

    def begin(self) -> None:
        """Start the run folder and write the inputs, if they are missing."""
        if self._begin:
            self._begin()
        if self._origin is not None and not self._file.exists():
            write_state(self._file, self._origin)

    @property
    def _file(self) -> Path:
        return self.path / "run.safetensors"

    def part(self, number: int) -> "PartStates":
        """Return the states of a part of the run, such as one of several fits."""
        return PartStates(self, number)


class PartStates:
    """The states of one part of a run, or its outcome once it is finished. Made by :meth:`RunStates.part`."""

    def __init__(self, states: RunStates, number: int) -> None:
        self.states, self.path, self.number = states, states.path, number
        self._saved, self._cost = time.monotonic(), 0.0

    @property
    def due(self) -> bool:
        """Whether the next state is due."""
        return distributed.is_rank_zero() and time.monotonic() - self._saved >= 60 * self.states.minutes

    @property
    def cheap(self) -> bool:
        """Whether saving now takes at most a twentieth of the time since the last save."""
        return distributed.is_rank_zero() and time.monotonic() - self._saved >= MIN_TIME_BETWEEN_SAVES * self._cost

    def save(self, value: Any) -> None:
        """Save `value` (see :func:`transfer.runs.packing.pack`) as the newest state, and keep the previous one.

        If it cannot be written, a TransferError is raised and earlier states remain.
        """
        if not distributed.is_rank_zero():
            return
        self.states.begin()
        started, counts = time.monotonic(), self._list_counts()
        write_state(self._file(counts[-1] + 1 if counts else 1), value)
        for count in counts[:-1]:
            self._file(count).unlink(missing_ok=True)
        self._saved = time.monotonic()
        self._cost = self._saved - started

    def load(self) -> Any | None:
        """Return the newest valid state, or None; the same in all processes."""
        return read_on_rank_zero(self._load)

    def _load(self) -> Any | None:
        for count in reversed(self._list_counts() if self.states.resumed else []):
            try:
                return read_state(self._file(count))
            except DamagedState as damage:
                log.warning("%s: %s; resuming from the previous one", self._file(count), damage)
                self._file(count).unlink(missing_ok=True)
        return None

    def finish(self, outcome: Any) -> None:
        """Save the outcome of the part in place of its states; raise a TransferError if it cannot be written."""
        if not distributed.is_rank_zero():
            return
        self.states.begin()
        write_state(self._file("done"), outcome)
        for count in self._list_counts():
            self._file(count).unlink(missing_ok=True)

    def outcome(self) -> Any | None:
        """Return the outcome of the part, or None if it is unfinished; the same in all processes."""
        return read_on_rank_zero(self._outcome)

    def _outcome(self) -> Any | None:
        file = self._file("done")
        try:
            return read_state(file) if self.states.resumed and file.exists() else None
        except DamagedState as damage:
            log.warning("%s: %s; that part of the run starts over", file, damage)
            return None

    def _list_counts(self) -> list[int]:
        names = [file.name.split(".") for file in self.path.glob(f"{self.number}.*.safetensors")]
        return sorted(int(count) for _, count, _ in names if count.isdecimal())

    def _file(self, name: int | str) -> Path:
        return self.path / f"{self.number}.{name}.safetensors"


def read_on_rank_zero(read: Callable[[], Any]) -> Any:
    """Return to all processes what `read` returns in the first, which alone may see the run folder."""
    if distributed.get_world_size() == 1:
        return read()
    tensors, record = pack(read() if distributed.is_rank_zero() else None)
    record = distributed.broadcast(record)
    return unpack(load(distributed.broadcast_bytes(save(tensors))), record)


class DamagedState(Exception):
    """A state file is damaged; the message says how."""


def write_state(path: Path, value: Any) -> None:
    """Write `value` to `path` atomically: tensors as safetensors, everything else as JSON in its header.

    If it cannot be written, a TransferError is raised.
    """
    tensors, record = pack(value)
    text = json.dumps(record)
    header = {"transfer": text, "version": STATE_VERSION, "crc": str(_crc(tensors, text))}
    with atomic_write(path) as temporary:
        save_file(tensors, temporary, metadata=header)


def read_state(path: Path) -> Any:
    """Return what :func:`write_state` wrote; raise DamagedState if the file is damaged or of another version."""
    try:
        with safe_open(path, "pt") as opened:
            header = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        text = header["transfer"]
        if header.get("version") != STATE_VERSION:
            raise DamagedState("written by another version of transfer")
        if str(_crc(tensors, text)) != header["crc"]:
            raise DamagedState("checksum mismatch")
        return unpack(tensors, json.loads(text))
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedState(f"not readable ({error})") from error


def _crc(tensors: Tensors, text: str) -> int:
    crc = zlib.crc32(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        crc = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), crc)
        crc = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, crc) if tensor.numel() else crc
    return crc
