"""What the page of several runs holds, as plain values for its template."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from transfer.errors import TransferError
from transfer.evaluation.paired import paired_test
from transfer.report import load
from transfer.report.command_line import command
from transfer.report.figures.svg import GOOD, INK, sheet, short
from transfer.report.load import Saved
from transfer.report.run_page import config_of, figure

NAME = 26  # letters of a run's name in the figure


def comparison(runs: Sequence[Saved], link: Callable[[Path], str]) -> dict[str, Any]:
    """Return the values of compare.html.

    Parameters
    ----------
    runs : sequence of Saved
        Of one `transfer compare`, or runs of train and adapt; the first is what the others are tested against.
    link : callable
        Gets a run folder; returns the address of its page, or an empty string.
    """
    whole = runs[0].result if len(runs) == 1 else None
    inner = [run for given in runs for run in (_inner(given) if given.result["command"] == "compare" else [given])]
    names = _names(inner, whole)
    heads = list(dict.fromkeys(head for run in inner for head in run.reports))
    config = config_of(runs[0]) if whole else None
    rows = [
        {
            "name": name,
            "link": link(run.path),
            "policy": run.result["policy"]["name"],
            "how": run.result["selection"]["chosen"] if run.adapted else "",
            "backbone": run.result.get("backbone", {}).get("name", ""),
            "scores": {head: figure(run, head, "accuracy") for head in heads},
            "against": {head: _paired(run, inner[0], head) for head in heads} if run is not inner[0] else {},
            "trained": run.result["policy"]["trained_parameters"],
            "seconds": run.result["seconds"]["total"],
            "bytes": run.result["policy"].get("optimizer_bytes"),
            "domains": {
                domain: {head: report.get("accuracy") for head, report in reports.items()}
                for domain, reports in run.result.get("per_domain", {}).items()
            },
        }
        for name, run in zip(names, inner, strict=True)
    ]
    return {
        "title": f"{len(rows)} runs side by side",
        "rows": rows,
        "heads": heads,
        "plots": [plot for i, head in enumerate(heads) if (plot := _drawing(head, i, rows))],
        "domains": list(dict.fromkeys(domain for row in rows for domain in row["domains"])),
        "differ": _differ(inner),
        "command": command(config) if config else "",
        "versions": runs[0].result.get("versions", {}),
        "paired": any(test for row in rows for test in row["against"].values()),
    }


def _inner(run: Saved) -> list[Saved]:
    """Return the runs of a `transfer compare`: from their folders, or what its result says of them."""
    found = []
    for text, result in run.result["runs"].items():
        path = run.path / text.replace(":", "-")
        try:
            found.append(load.read(path))
        except TransferError:
            found.append(Saved(path, result))
    return found


def _names(runs: Sequence[Saved], whole: dict[str, Any] | None) -> list[str]:
    """Return a name for each run: its policy within one comparison, else as much of its path as tells it apart."""
    if whole:
        return list(whole["runs"])
    paths = [run.path.absolute().parts for run in runs]
    for length in range(1, max(map(len, paths)) + 1):
        names = ["/".join(parts[-length:]) for parts in paths]
        if len(set(names)) == len(names):
            break
    return names


def _paired(run: Saved, first: Saved, head: str) -> dict[str, Any] | None:
    """Return a paired test on the test images that both runs share, each as often as both answered it; None of none."""
    by_path: dict[str, tuple[list[float], list[float]]] = {}
    for place, (right, paths) in enumerate((run.right(head), first.right(head))):
        for path, value in zip(paths.tolist(), right.tolist(), strict=True):
            by_path.setdefault(path, ([], []))[place].append(value)
    rows = [(a, b, path) for path, (mine, theirs) in by_path.items() for a, b in zip(mine, theirs, strict=False)]
    if not rows:
        return None
    mine, theirs, images = (np.array(column) for column in zip(*rows, strict=True))
    return paired_test(mine, theirs, images)


def _differ(runs: Sequence[Saved]) -> dict[str, list[str]]:
    """Return the settings in which the runs differ, of those that all have, the folder aside: each one's by name."""
    flat = [_flat(run.result["config"]) for run in runs]
    keys = [key for key in flat[0] if key.rpartition(".")[2] != "out" and all(key in one for one in flat)]
    values = {key: [str(one[key]) for one in flat] for key in keys}
    return {key: some for key, some in values.items() if len(set(some)) > 1}


def _flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in config.items():
        found |= _flat(value, f"{name}.") if isinstance(value, dict) else {prefix + name: value}
    return found


def _drawing(head: str, number: int, rows: list[dict[str, Any]]) -> Markup | None:
    """Return each run's accuracy as a dot on its interval (a standard deviation each way over seeds)."""
    scores = [(row["name"], row["scores"][head]) for row in rows if row["scores"][head]]
    if not scores:
        return None
    with sheet(f"compared-{number}", f"{head}: accuracy of each run", 4.4, 0.9 + 0.32 * len(scores)) as (figure, drawn):
        place = figure.subplots()
        for y, (_, score) in enumerate(scores):
            value = 100 * score["value"]
            low, high = score.get("low"), score.get("high")
            ends = (value - 100 * score["sd"], value + 100 * score["sd"]) if "sd" in score else (low, high)
            if None not in ends:
                scale = 1 if "sd" in score else 100
                place.plot([ends[0] * scale, ends[1] * scale], [y, y], color=GOOD, linewidth=3, alpha=0.45)
            place.plot(value, y, "o", color=GOOD)
        place.set_yticks(range(len(scores)), [short(name, NAME) for name, _ in scores])
        place.set_ylim(len(scores) - 0.5, -0.5)
        place.set_xlim(right=min(place.get_xlim()[1], 100.5))
        place.set_title(f"{head}: accuracy, %")
        place.grid(axis="x", color=INK, alpha=0.12, linewidth=0.5)
        place.spines["left"].set_visible(False)
        place.tick_params(axis="y", length=0)
    return drawn.svg
