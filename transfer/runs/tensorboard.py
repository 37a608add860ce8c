"""Write lines of metrics as TensorBoard event files."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transfer.errors import TransferError

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

SERIES_KEYS = ("run", "network", "head", "on", "candidate")  # keys of a line that name its series


class TensorboardWriter:
    """Writes event files to a folder; the first line creates the first file. Raises without the tensorboard package."""

    def __init__(self, folder: Path) -> None:
        if importlib.util.find_spec("tensorboard") is None:
            raise TransferError(
                "--tensorboard: the tensorboard package is not installed; pip install 'transfer-toolkit[tensorboard]'"
            )
        self.folder = folder
        self._writer: SummaryWriter | None = None
        self._steps: dict[str, int] = {}

    def write_line(self, line: dict[str, Any]) -> None:
        """Write the numbers of a line of metrics.jsonl."""
        from torch.utils.tensorboard import SummaryWriter

        self._writer = self._writer or SummaryWriter(str(self.folder))
        series = "".join(f"{str(line[key]).partition(', epoch')[0]}/" for key in SERIES_KEYS if key in line)
        step = self._steps[series] = self._steps.get(series, 0) + 1
        for name, value in _numbers({key: value for key, value in line.items() if key not in ("epoch", "of")}):
            self._writer.add_scalar(series + name, value, line.get("epoch", step))
        self._writer.flush()


def _numbers(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _numbers(value, f"{prefix}{key}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield prefix + key, value
