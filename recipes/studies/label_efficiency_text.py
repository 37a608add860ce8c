"""Tables and a plot of the label-efficiency study (see :func:`studies.label_efficiency.run_label_efficiency`)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from studies.plots import draw_curves
from transfer.report.console.tables import mean_sd_text, text_table

SCRATCH, PROBE, PROBE_THEN_TUNE = "scratch", "linear_probe", "lp_ft"
OTHER_STARTS = {
    "full": "random heads (full)",
    "gradual": "highest layers first (gradual)",
    "gradual:bottom_up": "lowest layers first (gradual:bottom_up)",
}

Record = Mapping[str, Any]


def labels_and_time_text(result: Mapping[str, Any]) -> str:
    """Return a table: for each policy the test accuracy by number of labels, and the seconds of the timed runs.

    ``seconds`` are those of all epochs. ``as scratch``: seconds until the validation accuracy first equals that of
    scratch at its end. ``times``: how many times faster than scratch that is. Seeds that never reach it are left out,
    and the number of the others is given. The last row says with how many labels scratch equals the probe.
    """
    runs_by_policy = _group_runs(result)
    labels = list(runs_by_policy[SCRATCH])
    timed = {policy: runs[labels[-1]] for policy, runs in runs_by_policy.items()}
    scratch_seconds = [_seconds_until(run, run) for run in timed[SCRATCH]]
    rows = []
    for policy, runs in runs_by_policy.items():
        seconds = [_seconds_until(run, end) for run, end in zip(timed[policy], timed[SCRATCH], strict=True)]
        times = [b / s for b, s in zip(scratch_seconds, seconds, strict=True) if b is not None and s is not None]
        reached = f" ({len(times)} of {len(seconds)})" if 0 < len(times) < len(seconds) else ""
        totals = [max(run["course"]["seconds"]) for run in timed[policy] if run["course"]["seconds"]]
        rows.append(
            [
                policy,
                *(mean_sd_text([run["object"] for run in runs[count]]) for count in labels),
                mean_sd_text(totals, ".1f"),
                mean_sd_text([s for s in seconds if s is not None], ".1f"),
                mean_sd_text(times, ".1f") + reached,
            ]
        )
    if PROBE in runs_by_policy:
        scratch: dict[float, float] = {i: _mean(runs_by_policy[SCRATCH][count]) for i, count in enumerate(labels)}
        equal = [find_first_x(scratch, _mean(runs_by_policy[PROBE][count])) for count in labels]
        names = ["never" if i is None else _labels_text(labels[int(i)]) for i in equal]
        rows.append(["scratch equals the probe at", *names, "", "", ""])
    head = ["object, labels per class and domain", *map(_labels_text, labels), "seconds", "as scratch", "times"]
    return text_table(head, rows)


def starts_text(result: Mapping[str, Any]) -> str:
    """Return a table: what random heads or another order of unfreezing gain over LP-FT, paired by seed."""
    runs_by_policy = _group_runs(result)
    labels = list(runs_by_policy[SCRATCH])
    if PROBE_THEN_TUNE not in runs_by_policy:
        return f"{PROBE_THEN_TUNE} was not run, so other orders of unfreezing have no reference"
    reference = runs_by_policy[PROBE_THEN_TUNE]
    scores = (mean_sd_text([run["object"] for run in reference[count]]) for count in labels)
    rows = [["heads first, then all layers (lp_ft)", *scores]]
    for policy, name in OTHER_STARTS.items():
        if policy in runs_by_policy:
            pairs = [zip(runs_by_policy[policy][count], reference[count], strict=True) for count in labels]
            gains = [[run["object"] - base["object"] for run, base in by_seed] for by_seed in pairs]
            rows.append([name, *(mean_sd_text(gain, "+.3f") for gain in gains)])
    return text_table(["object, and gain over lp_ft", *map(_labels_text, labels)], rows)


def draw_label_efficiency(path: Path, result: Mapping[str, Any]) -> None:
    """Write a PNG with two panels, both means over the seeds: accuracy by labelled images, and by seconds."""
    by_images, by_seconds = {}, {}
    runs_by_policy = _group_runs(result)
    for policy, runs in runs_by_policy.items():
        by_images[policy] = {fmean(run["images"] for run in seeds): _mean(seeds) for seeds in runs.values()}
        last = list(runs.values())[-1]
        by_seconds[policy] = average_curves([_validation_curve(run) for run in last])
    most = _labels_text(list(runs_by_policy[SCRATCH])[-1])
    panels = {"on test images": by_images, f"on validation images, {most} labels": by_seconds}
    draw_curves(path, panels, x=("labelled images", "seconds"), y="object accuracy", log_x=True)


def find_first_x(curve: Mapping[float, float], level: float) -> float | None:
    """Return the least x at which `curve` (value by x) is at least `level`; None if it never is.

    Examples
    --------
    >>> find_first_x({1: 0.4, 2: 0.8, 5: 0.7}, 0.7)
    2
    """
    return min((x for x, value in curve.items() if value >= level), default=None)


def average_curves(curves: Sequence[Mapping[float, float]]) -> dict[float, float]:
    """Return the mean of curves, point by point in order, in x and in value; as long as the shortest.

    Examples
    --------
    >>> average_curves([{1.0: 0.25, 2.0: 0.5}, {3.0: 0.75, 4.0: 1.0, 5.0: 1.0}])
    {2.0: 0.5, 3.0: 0.75}
    """
    pairs = zip(*(curve.items() for curve in curves), strict=False)
    return {fmean(x for x, _ in points): fmean(value for _, value in points) for points in pairs}


def _group_runs(result: Mapping[str, Any]) -> dict[str, dict[int, list[Record]]]:
    """Return the runs of all seeds by policy and number of labels, in their order in `result`."""
    grouped: dict[str, dict[int, list[Record]]] = {}
    for run in result["runs"]:
        grouped.setdefault(run["policy"], {}).setdefault(run["labels"], []).append(run)
    return grouped


def _validation_curve(run: Record) -> dict[float, float]:
    return dict(zip(run["course"]["seconds"], run["course"]["object"], strict=True))


def _seconds_until(run: Record, other: Record) -> float | None:
    """Return the seconds until `run` first has the validation accuracy that `other` ends with, if ever."""
    end = other["course"]["object"][-1:]
    return find_first_x(_validation_curve(run), end[0]) if end else None


def _mean(runs: Sequence[Record]) -> float:
    return fmean(run["object"] for run in runs)


def _labels_text(count: int) -> str:
    return str(count or "all")
