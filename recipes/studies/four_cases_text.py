"""Tables of the four-cases study (see :func:`studies.four_cases_study.run_four_cases`)."""

from collections.abc import Iterable, Mapping
from statistics import fmean
from typing import Any

from transfer.report.console.tables import mean_sd_text, text_table

ACCURACY_FORMAT = ".3f"


def policies_text(result: Mapping[str, Any]) -> str:
    """Return a table for each backbone: a row per policy, a column per case, test accuracy over the seeds.

    The last row is the policy that was advised for each seed. Notes below name the policies that failed.
    """
    names = list(dict.fromkeys(cell["backbone"] for cell in result["cells"]))
    parts = []
    for name in names:
        cells = [cell for cell in result["cells"] if cell["backbone"] == name]
        rows = [[p, *(_policy_accuracy(result, name, cell["case"], p) for cell in cells)] for p in result["policies"]]
        rows.append(["advised", *(_advised_accuracy(cell) for cell in cells)])
        parts.append(text_table([name, *(cell["case"] for cell in cells)], rows))
    failed = [
        f"note: {run['backbone']}, {run['policy']}: {run['failed']}" for run in result["records"] if "failed" in run
    ]
    if failed:
        parts.append("\n".join(dict.fromkeys(failed)))
    return "\n\n".join(parts)


def cells_text(result: Mapping[str, Any]) -> str:
    """Return a table with a row per backbone and case, the advised policy beside the best, and a summary below."""
    rows = []
    for cell in result["cells"]:
        rows.append(
            [
                _cell_name(cell),
                *(_join_if_different(cell[key]) for key in ("size", "kind", "advised")),
                _advised_accuracy(cell),
                f"{fmean(cell['expected']):{ACCURACY_FORMAT}} ({cell['within'].count(True)} of {len(cell['within'])})",
                _join_if_different(cell["best"]),
                mean_sd_text(cell["best_accuracy"], ACCURACY_FORMAT),
                mean_sd_text([100 * points for points in cell["regret"]], "+.1f"),
                *(_difference_text(cell[test]) for test in ("against_best", "against_reference")),
            ]
        )
    head = ["", "size", "kind", "advised", "accuracy", "expected (within)", "best by other seeds", "accuracy"]
    text = text_table([*head, "regret, points", "advised - best", "advised - linear_probe"], rows)
    return f"{text}\n\n{_summary_text(result)}"


def _summary_text(result: Mapping[str, Any]) -> str:
    cells, summary = result["cells"], result["summary"]
    if len(result["seeds"]) < 2:
        lines = ["one seed: regret needs other seeds to choose the best policy by; give --seeds 0,1,2"]
    elif summary["regret"] is None:
        lines = ["every advised policy failed: no regret"]
    else:
        compared = sum(bool(cell["regret"]) for cell in cells)
        lines = [f"mean regret over {compared} of {len(cells)} cells: {100 * summary['regret']:+.2f} points"]
        lines.append(f"significantly worse than the best: {_cell_names(cells, summary['worse_than_best'])}")
    lines.append(f"significantly worse than linear_probe: {_cell_names(cells, summary['worse_than_reference'])}")
    within = [inside for cell in cells for inside in cell["within"] if inside is not None]
    lines.append(f"accuracy within the expected 95 % interval: {within.count(True)} of {len(within)} runs")
    return "\n".join(lines)


def _advised_accuracy(cell: Mapping[str, Any]) -> str:
    return mean_sd_text([accuracy for accuracy in cell["accuracy"] if accuracy is not None], ACCURACY_FORMAT)


def _policy_accuracy(result: Mapping[str, Any], backbone: str, case: str, policy: str) -> str:
    """Return a policy's accuracy over the seeds for which it did not fail."""
    runs = [r for r in result["records"] if (r["backbone"], r["case"], r["policy"]) == (backbone, case, policy)]
    finished = [run["accuracy"] for run in runs if "accuracy" in run]
    count = f" ({len(finished)} of {len(runs)})" if 0 < len(finished) < len(runs) else ""
    return mean_sd_text(finished, ACCURACY_FORMAT) + count


def _difference_text(test: Mapping[str, Any] | None) -> str:
    """Return a paired difference with its interval.

    Examples
    --------
    >>> _difference_text({"difference": 0.012, "interval": [-0.001, 0.025]}), _difference_text(None)
    ('+0.012 [-0.001, +0.025]', '-')
    """
    return "-" if test is None else "{:+.3f} [{:+.3f}, {:+.3f}]".format(test["difference"], *test["interval"])


def _join_if_different(by_seed: Iterable[str]) -> str:
    """Return the value of each seed, or a single value if all seeds have the same.

    Examples
    --------
    >>> _join_if_different(["full", "full"]), _join_if_different(["full", "lp_ft", "full"]), _join_if_different([])
    ('full', 'full / lp_ft / full', '-')
    """
    values = list(by_seed)
    return " / ".join(values if len(set(values)) > 1 else values[:1]) or "-"


def _cell_names(cells: list[dict[str, Any]], indices: list[int]) -> str:
    return ", ".join(_cell_name(cells[i]) for i in indices) or "none"


def _cell_name(cell: Mapping[str, Any]) -> str:
    return f"{cell['backbone']} {cell['case']}"
