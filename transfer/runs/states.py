"""Where a run is, kept on disk: the last two states of each of its parts, and what came of parts that are done."""

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

from transfer.runs.folder import STATES
from transfer.runs.packing import Tensors, pack, unpack
from transfer.runtime import distributed
from transfer.runtime.files import atomic_write

SHARE = 20  # at least so many times as long as saving took, work goes on before a state is kept that is not due

log = logging.getLogger(__name__)


class Inputs(Protocol):
    """What a run comes from."""

    now: Any

    def check(self, before: Any) -> None:
        """Refuse to go on where ``now`` was another, `before`."""


class RunStates:
    """The states of a run, in its folder, which removes them once the run's result is written.

    Parameters
    ----------
    run : Path
        The run's folder.
    minutes : float
        After how many a state is due.
    begin : callable
        Called before anything is written, such as :meth:`transfer.runs.folder.RunFolder.start`.
    resumed : bool
        Otherwise whatever lies there belongs to another run.
    """

    def __init__(
        self, run: Path, minutes: float, *, begin: Callable[[], None] | None = None, resumed: bool = True
    ) -> None:
        self.path, self.minutes, self.resumed, self._begin = run / STATES, minutes, resumed, begin
        self._origin: Any = None

    def of(self, origin: Inputs) -> None:
        """Say what the run comes from: with the first state that is kept; of a run that goes on, it is checked.

        Raises
        ------
        TransferError
            It is not the same.
        """
        self._origin = origin.now
        if not distributed.is_rank_zero():
            return
        with contextlib.suppress(DamagedState, FileNotFoundError):
            origin.check(read(self._file) if self.resumed else origin.now)

    def begin(self) -> None:
        """See to it that all is there that states belong to."""
        if self._begin:
            self._begin()
        if self._origin is not None and not self._file.exists():
            write(self._file, self._origin)

    @property
    def _file(self) -> Path:
        return self.path / "run.safetensors"

    def part(self, number: int) -> "PartStates":
        """Return the states of the run's part of this number, such as one fit of several."""
        return PartStates(self, number)


class PartStates:
    """One part of a run: where it is, and once it is done what came of it. Make it through :meth:`RunStates.part`."""

    def __init__(self, states: RunStates, number: int) -> None:
        self.states, self.path, self.number = states, states.path, number
        self._saved, self._cost = time.monotonic(), 0.0

    @property
    def due(self) -> bool:
        """Whether the last state is as old as the run would have it at most."""
        return distributed.is_rank_zero() and time.monotonic() - self._saved >= 60 * self.states.minutes

    @property
    def cheap(self) -> bool:
        """Whether saving now, too, takes no more than a twentieth of the time."""
        return distributed.is_rank_zero() and time.monotonic() - self._saved >= SHARE * self._cost

    def save(self, value: Any) -> None:
        """Keep `value`, whatever :func:`transfer.runs.packing.pack` takes, as the newest state, and the one before.

        Raises
        ------
        TransferError
            It cannot be written; those that were kept before are.
        """
        if not distributed.is_rank_zero():
            return
        self.states.begin()
        began, there = time.monotonic(), self._there()
        write(self.path / f"{self.number}.{there[-1] + 1 if there else 1}.safetensors", value)
        for count in there[:-1]:
            self._file(count).unlink(missing_ok=True)
        self._saved = time.monotonic()
        self._cost = self._saved - began

    def load(self) -> Any | None:
        """Return the newest state that is sound, or None; in all processes what the first finds."""
        return everywhere(self._load)

    def _load(self) -> Any | None:
        for count in reversed(self._there() if self.states.resumed else []):
            try:
                return read(self._file(count))
            except DamagedState as damage:
                log.warning("%s: %s; going on from the one before", self._file(count), damage)
                self._file(count).unlink(missing_ok=True)
        return None

    def finish(self, outcome: Any) -> None:
        """Keep the part's `outcome`, in place of its states.

        Raises
        ------
        TransferError
            It cannot be written.
        """
        if not distributed.is_rank_zero():
            return
        self.states.begin()
        write(self.path / f"{self.number}.done.safetensors", outcome)
        for count in self._there():
            self._file(count).unlink(missing_ok=True)

    def outcome(self) -> Any | None:
        """Return what :meth:`finish` was given, or None if the part is not done; in all processes alike."""
        return everywhere(self._outcome)

    def _outcome(self) -> Any | None:
        file = self.path / f"{self.number}.done.safetensors"
        try:
            return read(file) if self.states.resumed and file.exists() else None
        except DamagedState as damage:
            log.warning("%s: %s; that part of the run begins anew", file, damage)
            return None

    def _there(self) -> list[int]:
        names = [file.name.split(".") for file in self.path.glob(f"{self.number}.*.safetensors")]
        return sorted(int(count) for _, count, _ in names if count.isdecimal())

    def _file(self, count: int) -> Path:
        return self.path / f"{self.number}.{count}.safetensors"


def everywhere(read: Callable[[], Any]) -> Any:
    """Return what `read` gives in the first process, which alone may see the run's folder, in all."""
    if distributed.get_world_size() == 1:
        return read()
    tensors, record = pack(read() if distributed.is_rank_zero() else None)
    record = distributed.broadcast(record)
    return unpack(load(distributed.broadcast_bytes(save(tensors))), record)


class DamagedState(Exception):
    """A file is not what was written; says how."""


def write(path: Path, value: Any) -> None:
    """Write `value` to `path`, whole or not at all: tensors as safetensors, all else as JSON in its header.

    Raises
    ------
    TransferError
        It cannot be written.
    """
    tensors, record = pack(value)
    text = json.dumps(record)
    with atomic_write(path) as temporary:
        save_file(tensors, temporary, metadata={"transfer": text, "crc": str(_crc(tensors, text))})


def read(path: Path) -> Any:
    """Return what :func:`write` wrote to `path`.

    Raises
    ------
    DamagedState
        It is not that any more.
    """
    try:
        with safe_open(path, "pt") as opened:
            header = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        text = header["transfer"]
        if str(_crc(tensors, text)) != header["crc"]:
            raise DamagedState("its content is not what was written")
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
