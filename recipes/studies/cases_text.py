"""Advice beside the truth, as :func:`studies.cases.cases` found it -> tables."""

from collections.abc import Iterable, Mapping
from statistics import fmean
from typing import Any

from transfer.report.text import mean_sd_text, text_table

FORM = ".3f"


def by_policy(result: Mapping[str, Any]) -> str:
    """Return a table for each backbone: a row per policy, a column per case, test accuracy over the seeds.

    The last row is what was advised, whichever that was under each seed. Below is said what could not be done.
    """
    names = list(dict.fromkeys(cell["backbone"] for cell in result["cells"]))
    parts = []
    for name in names:
        cells = [cell for cell in result["cells"] if cell["backbone"] == name]
        rows = [[p, *(_reached(result, name, cell["case"], p) for cell in cells)] for p in result["policies"]]
        rows.append(
            ["advised", *(mean_sd_text([a for a in cell["accuracy"] if a is not None], FORM) for cell in cells)]
        )
        parts.append(text_table([name, *(cell["case"] for cell in cells)], rows))
    failed = [
        f"note: {run['backbone']}, {run['policy']}: {run['failed']}" for run in result["records"] if "failed" in run
    ]
    if failed:
        parts.append("\n".join(dict.fromkeys(failed)))
    return "\n\n".join(parts)


def by_cell(result: Mapping[str, Any]) -> str:
    """Return a table: for each backbone and case what was advised and what came of it; then the verdict."""
    rows = []
    for cell in result["cells"]:
        rows.append(
            [
                _name(cell),
                *(_either(cell[what]) for what in ("size", "kind", "advised")),
                mean_sd_text([a for a in cell["accuracy"] if a is not None], FORM),
                f"{fmean(cell['expected']):{FORM}} ({cell['within'].count(True)} of {len(cell['within'])})",
                _either(cell["best"]),
                mean_sd_text(cell["best_accuracy"], FORM),
                mean_sd_text([100 * points for points in cell["regret"]], "+.1f"),
                *(_difference(cell[test]) for test in ("against_best", "against_reference")),
            ]
        )
    head = ["", "size", "kind", "advised", "reached", "expected (within)", "best by other seeds", "reached"]
    text = text_table([*head, "regret, points", "against best", "against linear_probe"], rows)
    return f"{text}\n\n{_verdict(result)}"


def _verdict(result: Mapping[str, Any]) -> str:
    cells, summary = result["cells"], result["summary"]
    if len(result["seeds"]) < 2:
        said = ["one seed: no other seeds to choose the best by, so no regret; say --seeds 0,1,2"]
    elif summary["regret"] is None:
        said = ["no advised policy could be carried out: no regret"]
    else:
        judged = sum(bool(cell["regret"]) for cell in cells)
        said = [f"mean regret over {judged} of {len(cells)} cells: {100 * summary['regret']:+.2f} points"]
        said.append(f"significantly worse than the best: {_named(cells, summary['worse_than_best'])}")
    said.append(f"significantly worse than linear_probe: {_named(cells, summary['worse_than_reference'])}")
    held = [inside for cell in cells for inside in cell["within"] if inside is not None]
    said.append(f"what was expected held, for so many test images, {held.count(True)} times of {len(held)}")
    return "\n".join(said)


def _reached(result: Mapping[str, Any], backbone: str, case: str, policy: str) -> str:
    """Return a policy's accuracy over the seeds; of those where it could be carried out."""
    runs = [r for r in result["records"] if (r["backbone"], r["case"], r["policy"]) == (backbone, case, policy)]
    done = [run["accuracy"] for run in runs if "accuracy" in run]
    return mean_sd_text(done, FORM) + (f" ({len(done)} of {len(runs)})" if 0 < len(done) < len(runs) else "")


def _difference(test: Mapping[str, Any] | None) -> str:
    """Return a paired difference with its interval.

    Examples
    --------
    >>> _difference({"difference": 0.012, "interval": [-0.001, 0.025]}), _difference(None)
    ('+0.012 [-0.001, +0.025]', '-')
    """
    return "-" if test is None else "{:+.3f} [{:+.3f}, {:+.3f}]".format(test["difference"], *test["interval"])


def _either(by_seed: Iterable[str]) -> str:
    """Return what was the same under all seeds once, else what it was under each.

    Examples
    --------
    >>> _either(["full", "full"]), _either(["full", "lp_ft", "full"]), _either([])
    ('full', 'full / lp_ft / full', '-')
    """
    some = list(by_seed)
    return " / ".join(some if len(set(some)) > 1 else some[:1]) or "-"


def _named(cells: list[dict[str, Any]], places: list[int]) -> str:
    return ", ".join(_name(cells[place]) for place in places) or "none"


def _name(cell: Mapping[str, Any]) -> str:
    return f"{cell['backbone']} {cell['case']}"
