"""A run, or several side by side -> one HTML page that needs nothing else."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from transfer.errors import TransferError
from transfer.report import load
from transfer.report.comparison_page import comparison
from transfer.report.load import Saved
from transfer.report.run_page import contents
from transfer.runtime.files import write_text

NAME, COMPARED = "report.html", "compare.html"


def write_report(*runs: str | os.PathLike[str], out: str | os.PathLike[str] | None = None) -> Path:
    """Write the page of a run, or one that compares several; return where it is.

    Parameters
    ----------
    runs : path
        Run folders of `transfer train`, `adapt` or `compare`.
    out : path, optional
        The file to write (default: report.html in the run folder; of several runs compare.html here).

    Raises
    ------
    TransferError
        No finished run there, or a damaged one; a file that cannot be written.
    """
    if not runs:
        raise TransferError("no run given: name the folder of a run, or of several to compare")
    read = [load.read(Path(run)) for run in runs]
    file = Path(out) if out else read[0].path / NAME if len(read) == 1 else Path(COMPARED)
    write_text(file, render(read, file.parent))
    return file


def render(runs: Sequence[Saved], folder: Path) -> str:
    """Return the page of `runs` that will lie in `folder`, as HTML."""
    if len(runs) > 1 or runs[0].result["command"] == "compare":
        return _filled("compare.html", comparison(runs, lambda path: _link(path, folder)))
    return _filled("run.html", contents(runs[0]))


def _filled(template: str, values: dict[str, Any]) -> str:
    from jinja2 import ChainableUndefined, Environment, PackageLoader

    loader = PackageLoader("transfer.report", "templates")
    # What an older run's result does not have, is left out.
    environment = Environment(
        loader=loader, autoescape=True, undefined=ChainableUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"percent": _percent, "points": _points, "seconds": _seconds}
    return environment.get_template(template).render(values)


def _percent(share: Any, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f}\u00a0%" if isinstance(share, int | float) else "–"


def _points(share: float) -> str:
    return f"{100 * share:+.1f}"


def _seconds(seconds: Any) -> str:
    if not isinstance(seconds, int | float):
        return "–"
    return f"{seconds:,.1f}\u00a0s" if seconds < 300 else f"{seconds / 60:,.0f}\u00a0min"


def _link(path: Path, folder: Path) -> str:
    """Return a relative address of the page in the run folder `path`, if there is one."""
    file = path / NAME
    return quote(Path(os.path.relpath(file, folder or ".")).as_posix()) if file.is_file() else ""
