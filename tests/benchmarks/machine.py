"""The header line of a benchmark (machine and versions), and its table as text."""

import os
import platform
import re
from pathlib import Path

import torch
import torchvision

import transfer


def describe() -> str:
    """Return processor, cores, GPU and versions in one line."""
    cpu = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.*)", cpu.read_text()) if cpu.exists() else None
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return (
        f"{found[1] if found else platform.processor()}, {os.cpu_count()} cores, {device}; "
        f"Python {platform.python_version()}, torch {torch.__version__}, torchvision {torchvision.__version__}, "
        f"transfer {transfer.__version__}"
    )


def format_table(rows: list[list[str]]) -> str:
    """Return `rows`, the heading first, as aligned columns."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)
