"""Lines of metrics as event files, which TensorBoard shows while a run goes on."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transfer.errors import TransferError

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

COURSES = ("run", "network", "head", "on", "candidate")  # what a line belongs to, in words


class TensorboardWriter:
    """Event files in a folder; the first line makes the first file.

    Raises
    ------
    TransferError
        The tensorboard package is not installed.
    """

    def __init__(self, folder: Path) -> None:
        if importlib.util.find_spec("tensorboard") is None:
            raise TransferError("--tensorboard: no such package here; pip install 'transfer[tensorboard]'")
        self.folder = folder
        self._writer: SummaryWriter | None = None
        self._steps: dict[str, int] = {}

    def line(self, line: dict[str, Any]) -> None:
        """Write the numbers of a line of metrics.jsonl."""
        from torch.utils.tensorboard import SummaryWriter

        self._writer = self._writer or SummaryWriter(str(self.folder))
        course = "".join(f"{str(line[key]).partition(', epoch')[0]}/" for key in COURSES if key in line)
        step = self._steps[course] = self._steps.get(course, 0) + 1
        for name, value in _numbers({key: value for key, value in line.items() if key not in ("epoch", "of")}):
            self._writer.add_scalar(course + name, value, line.get("epoch", step))
        self._writer.flush()


def _numbers(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _numbers(value, f"{prefix}{key}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield prefix + key, value
