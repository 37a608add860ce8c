"""What pretraining is worth, as :func:`studies.worth.worth` found it -> tables and a plot."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from studies.plots import curves
from transfer.report.text import mean_sd_text, text_table

SCRATCH, PROBE, PROBED = "scratch", "linear_probe", "lp_ft"
STARTS = {
    "full": "heads at random (full)",
    "gradual": "highest layers first (gradual)",
    "gradual:bottom_up": "lowest layers first (gradual:bottom_up)",
}

Run = Mapping[str, Any]


def by_labels_and_time(result: Mapping[str, Any]) -> str:
    """Return a table: by policy the test accuracy with each number of labels, and the seconds of the timed runs.

    ``seconds`` are those of all epochs; ``as scratch`` those until the validation accuracy first was what it is at the
    end of scratch, and ``times`` how much sooner than scratch that is. Where some seeds never got there, the others
    count, and are counted. The last row says with how many labels scratch has what the probe has with the column's.
    """
    by = _grouped(result)
    policies, labels = list(by), list(by[SCRATCH])
    timed = {policy: by[policy][labels[-1]] for policy in policies}
    base = [_until(run, run) for run in timed[SCRATCH]]
    rows = []
    for policy in policies:
        soon = [_until(run, end) for run, end in zip(timed[policy], timed[SCRATCH], strict=True)]
        times = [b / s for b, s in zip(base, soon, strict=True) if b is not None and s is not None]
        reached = f" ({len(times)} of {len(soon)})" if 0 < len(times) < len(soon) else ""
        whole = mean_sd_text(
            [max(run["course"]["seconds"]) for run in timed[policy] if run["course"]["seconds"]], ".1f"
        )
        cells = [mean_sd_text([run["object"] for run in by[policy][few]]) for few in labels]
        rows.append(
            [
                policy,
                *cells,
                whole,
                mean_sd_text([s for s in soon if s is not None], ".1f"),
                mean_sd_text(times, ".1f") + reached,
            ]
        )
    if PROBE in by:
        scratch: dict[float, float] = {place: _mean(by[SCRATCH][few]) for place, few in enumerate(labels)}
        equal = [first_at(scratch, _mean(by[PROBE][few])) for few in labels]
        names = ["never" if place is None else _name(labels[int(place)]) for place in equal]
        rows.append(["scratch equals the probe at", *names, "", "", ""])
    return text_table(
        ["object, labels a class and domain", *map(_name, labels), "seconds", "as scratch", "times"], rows
    )


def by_start(result: Mapping[str, Any]) -> str:
    """Return a table: what other orders of opening layers, or heads at random, add to LP-FT, paired by seed."""
    by = _grouped(result)
    labels = list(by[SCRATCH])
    if PROBED not in by:
        return f"{PROBED} was not run: nothing to hold orders of opening against"
    rows = [
        [
            "heads first, then all layers (lp_ft)",
            *(mean_sd_text([r["object"] for r in by[PROBED][few]]) for few in labels),
        ]
    ]
    for policy, name in STARTS.items():
        if policy in by:
            pairs = {few: zip(by[policy][few], by[PROBED][few], strict=True) for few in labels}
            gains = [[one["object"] - other["object"] for one, other in each] for each in pairs.values()]
            rows.append([name, *(mean_sd_text(gain, "+.3f") for gain in gains)])
    return text_table(["object, and what is gained on it", *map(_name, labels)], rows)


def draw(path: Path, result: Mapping[str, Any]) -> None:
    """Write a PNG with two panels, both means over the seeds: accuracy by labelled images, and by seconds."""
    by = _grouped(result)
    data, pace = {}, {}
    for policy, runs in by.items():
        data[policy] = {fmean(run["images"] for run in some): _mean(some) for some in runs.values()}
        last = list(runs.values())[-1]
        pace[policy] = mean_curve([_course(run) for run in last])
    most = _name(list(by[SCRATCH])[-1])
    panels = {"on test images": data, f"on validation images, {most} labels": pace}
    curves(path, panels, x=("labelled images", "seconds"), y="object accuracy", log_x=True)


def first_at(curve: Mapping[float, float], level: float) -> float | None:
    """Return the least x at which the value of `curve`, value by x, is at least `level`; None if it never is.

    Examples
    --------
    >>> first_at({1: 0.4, 2: 0.8, 5: 0.7}, 0.7)
    2
    """
    return min((x for x, value in curve.items() if value >= level), default=None)


def mean_curve(some: Sequence[Mapping[float, float]]) -> dict[float, float]:
    """Return the mean of curves, point by point in their order, in x and in value; as long as the shortest.

    Examples
    --------
    >>> mean_curve([{1.0: 0.25, 2.0: 0.5}, {3.0: 0.75, 4.0: 1.0, 5.0: 1.0}])
    {2.0: 0.5, 3.0: 0.75}
    """
    pairs = zip(*(curve.items() for curve in some), strict=False)
    return {fmean(x for x, _ in points): fmean(value for _, value in points) for points in pairs}


def _grouped(result: Mapping[str, Any]) -> dict[str, dict[int, list[Run]]]:
    """Return the runs of all seeds by policy and number of labels, in the order in which they are told."""
    by: dict[str, dict[int, list[Run]]] = {}
    for run in result["runs"]:
        by.setdefault(run["policy"], {}).setdefault(run["labels"], []).append(run)
    return by


def _course(run: Run) -> dict[float, float]:
    return dict(zip(run["course"]["seconds"], run["course"]["object"], strict=True))


def _until(run: Run, other: Run) -> float | None:
    """Return the seconds until `run` first is as good on the validation images as `other` in the end, if ever."""
    end = other["course"]["object"][-1:]
    return first_at(_course(run), end[0]) if end else None


def _mean(runs: Sequence[Run]) -> float:
    return fmean(run["object"] for run in runs)


def _name(few: int) -> str:
    return str(few or "all")
