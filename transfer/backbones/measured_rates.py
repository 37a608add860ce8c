"""Images per second that were measured on this machine, cached so that each network is measured once."""

import contextlib
import platform
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from transfer.backbones.engines.compiled import ENGINES, describe_version
from transfer.backbones.speed import MEASURING_VERSION, measure_rate
from transfer.backbones.trunk import TRUNK_VERSION
from transfer.disk_cache.folder import hash_record
from transfer.errors import TransferError
from transfer.runtime import distributed
from transfer.runtime.files import get_cache_folder, read_json, write_json

CPUINFO = Path("/proc/cpuinfo")
QUIET_SECONDS = 2.0  # of measuring, before a progress bar shows


class MeasuredRates:
    """The rates of networks on `device`, by name, in a file of the user's cache folder.

    The file belongs to the processor or GPU, the number of cores, the versions of torch and the engines, and the way of
    measuring. One that cannot be read counts as empty; where it cannot be written, the next process measures again.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.about = describe_machine(device)
        self.file = get_cache_folder("speed", f"{hash_record(self.about)[:32]}.json")
        self.rates: dict[str, float] = {}
        with contextlib.suppress(TransferError):
            saved = read_json(self.file)
            if saved.get("about") == self.about and isinstance(saved.get("rates"), dict):
                self.rates = {n: float(r) for n, r in saved["rates"].items() if isinstance(r, int | float) and r > 0}

    def measure(self, names: Iterable[str]) -> dict[str, float]:
        """Return the rate of each network, measured now where it is not cached."""
        missing = [name for name in names if name not in self.rates]
        bar = tqdm(missing, "measuring speed", unit="network", delay=QUIET_SECONDS, disable=None, leave=False)
        for name in bar:
            self.rates[name] = measure_rate(name, self.device)
        if missing:
            with contextlib.suppress(TransferError):
                write_json(self.file, {"about": self.about, "rates": self.rates})
        return {name: self.rates[name] for name in names}


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Return everything that a rate depends on besides the network, as plain JSON."""
    if device.type == "cuda":
        model = torch.cuda.get_device_name(device)
    else:
        named = re.search(r"model name\s*:\s*(.*)", CPUINFO.read_text()) if CPUINFO.is_file() else None
        model = named[1] if named else platform.processor() or platform.machine()
    return {
        "device": device.type,
        "model": model,
        "cores": distributed.count_cores_per_process(),
        "torch": torch.__version__,
        "engines": {name: describe_version(name) for name in ENGINES},
        "rules": [TRUNK_VERSION, MEASURING_VERSION],
    }
