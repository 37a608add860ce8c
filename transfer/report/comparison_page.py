"""The page that compares several runs: values for the template compare.html."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from transfer.errors import TransferError
from transfer.evaluation.paired import paired_test
from transfer.report.command_line import command_line
from transfer.report.figures.intervals import draw_intervals
from transfer.report.load import SavedRun, read_saved_run
from transfer.report.run_page import config_of, score_interval


def comparison_page(runs: Sequence[SavedRun], link: Callable[[Path], str]) -> dict[str, Any]:
    """Return the values of compare.html.

    Parameters
    ----------
    runs : sequence of SavedRun
        One run of `transfer compare`, or runs of train and adapt. The others are tested against the first.
    link : callable
        Gets a run folder; returns the address of its page, or an empty string.
    """
    compared = runs[0].result if len(runs) == 1 else None
    inner = [run for outer in runs for run in (_inner_runs(outer) if outer.result["command"] == "compare" else [outer])]
    names = _run_names(inner, compared)
    tested = compared.get("paired", {}) if compared else {}  # of several labels an image, too
    heads = list(dict.fromkeys(head for run in inner for head in run.metrics_by_head))
    config = config_of(runs[0]) if compared else None
    rows = [
        {
            "name": name,
            "link": link(run.path),
            "policy": run.result["policy"]["name"],
            "method": run.result["selection"]["chosen"] if run.adapted else "",
            "backbone": run.result.get("backbone", {}).get("name", ""),
            "scores": {h: score_interval(run, h, "accuracy") or score_interval(run, h, "map") for h in heads},
            "against": {head: _test_against(run, inner[0], head) or tested.get(name, {}).get(head) for head in heads}
            if run is not inner[0]
            else {},
            "trained": run.result["policy"]["trained_parameters"],
            "seconds": run.result["seconds"]["total"],
            "bytes": run.result["policy"].get("optimizer_bytes"),
            "domains": {
                domain: {head: metrics.get("accuracy", metrics.get("map")) for head, metrics in by_head.items()}
                for domain, by_head in run.result.get("per_domain", {}).items()
            },
        }
        for name, run in zip(names, inner, strict=True)
    ]
    return {
        "title": f"{len(rows)} runs side by side",
        "rows": rows,
        "heads": heads,
        "plots": [plot for head in heads if (plot := _draw_accuracies(head, rows))],
        "domains": list(dict.fromkeys(domain for row in rows for domain in row["domains"])),
        "differ": _settings_that_differ(inner),
        "command": command_line(config) if config else "",
        "versions": runs[0].result.get("versions", {}),
        "paired": any(test for row in rows for test in row["against"].values()),
    }


def _inner_runs(run: SavedRun) -> list[SavedRun]:
    """Return the runs of a `transfer compare`, from their folders or, without these, from its result."""
    inner = []
    for text, result in run.result["runs"].items():
        path = run.path / text.replace(":", "-")
        try:
            inner.append(read_saved_run(path))
        except TransferError:
            inner.append(SavedRun(path, result))
    return inner


def _run_names(runs: Sequence[SavedRun], compared: dict[str, Any] | None) -> list[str]:
    """Return a name for each run: its policy within one comparison, else the shortest unique end of its path."""
    if compared:
        return list(compared["runs"])
    paths = [run.path.absolute().parts for run in runs]
    for length in range(1, max(map(len, paths)) + 1):
        names = ["/".join(parts[-length:]) for parts in paths]
        if len(set(names)) == len(names):
            break
    return names


def _test_against(run: SavedRun, first: SavedRun, head: str) -> dict[str, Any] | None:
    """Return a paired test on the test images that both runs predicted, over all seeds; None if there are none."""
    by_path: dict[str, tuple[list[float], list[float]]] = {}
    for side, (correct, paths) in enumerate((run.correct(head), first.correct(head))):
        for path, value in zip(paths.tolist(), correct.tolist(), strict=True):
            by_path.setdefault(path, ([], []))[side].append(value)
    rows = [(a, b, path) for path, (ours, firsts) in by_path.items() for a, b in zip(ours, firsts, strict=False)]
    if not rows:
        return None
    ours, firsts, images = (np.array(column) for column in zip(*rows, strict=True))
    return paired_test(ours, firsts, images)


def _settings_that_differ(runs: Sequence[SavedRun]) -> dict[str, list[str]]:
    """Return the values of each setting that differs between runs, except the run folder."""
    configs = [_flatten(run.result["config"]) for run in runs]
    keys = [key for key in configs[0] if key.rpartition(".")[2] != "out" and all(key in config for config in configs)]
    values = {key: [str(config[key]) for config in configs] for key in keys}
    return {key: by_run for key, by_run in values.items() if len(set(by_run)) > 1}


def _flatten(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in config.items():
        flat |= _flatten(value, f"{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def _draw_accuracies(head: str, rows: list[dict[str, Any]]) -> Markup | None:
    """Return each run's accuracy as a dot on its interval (one standard deviation each way over seeds)."""
    shown = []
    for row in rows:
        if score := row["scores"][head]:
            value, spread = score["value"], score.get("sd")
            ends = (score.get("low"), score.get("high")) if spread is None else (value - spread, value + spread)
            shown.append((row["name"], 100 * value, None if None in ends else (100 * ends[0], 100 * ends[1])))
    return draw_intervals(f"{head}: accuracy, %", shown) if shown else None
