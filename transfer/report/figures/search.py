"""Figures of a hyper-parameter search (accuracy by setting) and of a learning-rate range test (loss by rate)."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from transfer.runtime.files import atomic_write

BLUE, RED = "#0072B2", "#D55E00"


def draw_landscape(path: Path, result: dict[str, Any]) -> None:
    """Write a PNG of a search's trials: the plane of the two most important numbers, and accuracy by each setting.

    In the plane, trials that were stopped early are small dots, and the best trial is a star.
    """
    from matplotlib.figure import Figure

    trials, best = result["trials"], result["best"]
    names = list(best["settings"])
    numbers = [n for n in (result["importance"] or names) if isinstance(best["settings"][n], float | int)][:2]
    values = np.array([record["val_acc"] for record in trials])
    panels = len(names) + (len(numbers) == 2)
    wide = min(panels, 3)
    tall = -(-panels // wide)
    figure = Figure(figsize=(5.2 * wide, 4.2 * tall), dpi=110, layout="constrained")
    axes = list(figure.subplots(tall, wide, squeeze=False).ravel())
    for unused in axes[panels:]:
        unused.set_axis_off()
    if len(numbers) == 2:
        axis = axes.pop(0)
        x, y = ([record["settings"][name] for record in trials] for name in numbers)
        order = np.argsort(values, kind="stable")  # the best on top
        low = np.quantile(values, 0.2)  # trials that learn nothing would hide all other differences
        sizes = np.where([record["stopped"] != "" for record in trials], 9, 32)[order]
        dots = axis.scatter(np.array(x)[order], np.array(y)[order], c=values[order], vmin=low, s=sizes)
        axis.plot(best["settings"][numbers[0]], best["settings"][numbers[1]], "*", color=RED, markersize=14)
        figure.colorbar(dots, ax=axis, label="val_acc", extend="min")
        axis.set(xlabel=numbers[0], ylabel=numbers[1], xscale=_scale(x), yscale=_scale(y))
    for name, axis in zip(names, axes, strict=False):
        for stage, colour in (("coarse", BLUE), ("fine", RED)):
            of_stage = [record for record in trials if record["stage"] == stage]
            for early, marker in ((True, "x"), (False, "o")):
                shown = [r for r in of_stage if (r["stopped"] != "") == early]
                label = f"{stage}{', stopped early' if early else ''}"
                x, y = [r["settings"][name] for r in shown], [r["val_acc"] for r in shown]
                if shown:
                    axis.plot(x, y, marker, color=colour, markersize=4, alpha=0.7, label=label)
        axis.set(xlabel=name, ylabel="val_acc", xscale=_scale([r["settings"][name] for r in trials]))
        axis.grid(axis="y", color="0.92")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False, fontsize=8)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png")


def draw_range_test(path: Path, result: dict[str, Any]) -> None:
    """Write a PNG of a range test: the raw and the smoothed loss by learning rate, and the suggested rates."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 4.5), dpi=110, layout="constrained")
    axis = figure.subplots()
    curve = result["curve"]
    axis.plot(curve["rate"], curve["loss"], color="0.8", linewidth=1, label="each batch")
    axis.plot(curve["rate"], curve["smoothed"], color=BLUE, label="smoothed")
    for name, style in (("steepest", "-"), ("minimum_over_ten", "--")):
        axis.axvline(result[name], color=RED, linestyle=style, linewidth=1, label=name.replace("_", " "))
    smooth = [value for value in curve["smoothed"] if math.isfinite(value)]
    low, high = min(smooth), smooth[0]
    axis.set(xscale="log", xlabel="learning rate", ylabel="loss", ylim=(low - 0.2 * (high - low), high * 1.5))
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=8)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png")


def _scale(values: Sequence[Any]) -> str:
    plain = all(isinstance(value, float | int) and value > 0 for value in values)  # numbers above 0 only
    return "log" if plain and max(values) >= 10 * min(values) else "linear"
