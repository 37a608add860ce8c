"""Write the report of one run, or of several side by side, as a single HTML file."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from markupsafe import Markup, escape

from transfer.errors import TransferError
from transfer.report.comparison_page import comparison_page
from transfer.report.inspection_page import inspection_page
from transfer.report.load import SavedRun, read_saved_run
from transfer.report.picks_page import picks_page, simulation_page
from transfer.report.run_page import run_page
from transfer.runs.folder import FINDINGS_FILE
from transfer.runtime.files import read_json, write_text

if TYPE_CHECKING:
    from transfer.curation.pick import PickResult

RUN_PAGE_FILE, COMPARISON_FILE, INSPECTION_PAGE_FILE = "report.html", "compare.html", "inspection.html"


def write_report(*runs: str | os.PathLike[str], out: str | os.PathLike[str] | None = None) -> Path:
    """Write the page of one run, or a page that compares several; return its path.

    Parameters
    ----------
    runs : path
        Run folders of `transfer train`, `adapt` or `compare`; or one of `inspect`.
    out : path, optional
        The file to write (default: report.html in the run folder; for several runs compare.html in the working
        directory).

    Raises
    ------
    TransferError
        A folder without a finished run, a damaged run, or a file that cannot be written.
    """
    if not runs:
        raise TransferError("no run given: name the folder of a run, or several to compare")
    if len(runs) == 1 and (Path(runs[0]) / FINDINGS_FILE).is_file():
        return _draw_findings(Path(runs[0]) / FINDINGS_FILE, Path(out) if out else Path(runs[0]) / INSPECTION_PAGE_FILE)
    loaded = [read_saved_run(Path(run)) for run in runs]
    file = Path(out) if out else loaded[0].path / RUN_PAGE_FILE if len(loaded) == 1 else Path(COMPARISON_FILE)
    write_text(file, render_report(loaded, file.parent))
    return file


def write_inspection(findings: Mapping[str, Any], file: Path) -> Path:
    """Write the page of a data set, from what :func:`transfer.curation.inspect.inspect` returns; return its path.

    Raises
    ------
    TransferError
        The file cannot be written.
    """
    write_text(file, _fill_template("inspection.html", inspection_page(findings)))
    return file


def _draw_findings(findings: Path, file: Path) -> Path:
    try:
        return write_inspection(read_json(findings), file)
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        raise TransferError(f"{findings} is damaged or of another version: run transfer inspect again") from error


def write_contact_sheet(result: "PickResult", file: Path) -> Path:
    """Write the page with the images that :func:`transfer.curation.pick.pick` chose; return its path.

    Raises
    ------
    TransferError
        The file cannot be written.
    """
    write_text(file, _fill_template("picks.html", picks_page(result)))
    return file


def write_simulation(result: Mapping[str, Any], file: Path) -> Path:
    """Write the page with the curves of :func:`transfer.curation.simulation.simulate`; return its path.

    Raises
    ------
    TransferError
        The file cannot be written.
    """
    write_text(file, _fill_template("simulation.html", simulation_page(result)))
    return file


def render_report(runs: Sequence[SavedRun], folder: Path) -> str:
    """Return the HTML page of `runs`, with links relative to `folder`."""
    if len(runs) > 1 or runs[0].result["command"] == "compare":
        return _fill_template("compare.html", comparison_page(runs, lambda path: _link(path, folder)))
    return _fill_template("run.html", run_page(runs[0]))


def _fill_template(template: str, values: dict[str, Any]) -> str:
    from jinja2 import ChainableUndefined, Environment, PackageLoader

    loader = PackageLoader("transfer.report", "templates")
    # Undefined values are left out: a result of an older version lacks some.
    environment = Environment(
        loader=loader, autoescape=True, undefined=ChainableUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"percent": _percent, "points": _points, "seconds": _seconds, "breakable": _breakable}
    return environment.get_template(template).render(values)


def _percent(share: Any, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f}\u00a0%" if isinstance(share, int | float) else "–"


def _breakable(path: str) -> Markup:
    """Return a path whose lines may break after a slash, a dash or an underscore."""
    return Markup(re.sub(r"(/|_|-)", r"\1<wbr>", str(escape(path))))


def _points(share: float) -> str:
    return f"{100 * share:+.1f}"


def _seconds(seconds: Any) -> str:
    if not isinstance(seconds, int | float):
        return "–"
    return f"{seconds:,.1f}\u00a0s" if seconds < 300 else f"{seconds / 60:,.0f}\u00a0min"


def _link(path: Path, folder: Path) -> str:
    """Return the relative address of the page in the run folder `path`, or an empty string."""
    file = path / RUN_PAGE_FILE
    return quote(Path(os.path.relpath(file, folder or ".")).as_posix()) if file.is_file() else ""
