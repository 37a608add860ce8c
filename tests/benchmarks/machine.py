"""The machine's line over every table, and tables."""

import os
import platform
import re
from pathlib import Path

import torch
import torchvision

import transfer


def line() -> str:
    """Return one line on the machine and the versions."""
    cpu = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.*)", cpu.read_text()) if cpu.exists() else None
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return (
        f"{found[1] if found else platform.processor()}, {os.cpu_count()} cores, {device}; "
        f"Python {platform.python_version()}, torch {torch.__version__}, torchvision {torchvision.__version__}, "
        f"transfer {transfer.__version__}"
    )


def table(rows: list[list[str]]) -> str:
    """Return `rows`, the first one the heading, as aligned columns."""
    wide = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, wide, strict=True)).rstrip() for row in rows)
