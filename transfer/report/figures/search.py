"""What a search and a range test found: tables, and pictures of the landscape and of the loss by rate."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from transfer.report.text import one_run, table
from transfer.runtime.files import atomic_write

SHOWN = 10
BLUE, RED = "#0072B2", "#D55E00"


def searched(result: dict[str, Any]) -> str:
    """Return what `transfer search` prints at the end: its best trials, what mattered, and how to go on."""
    best = result["best"]
    names, heads = list(best["settings"]), list(best["val"])
    rows = []
    for record in sorted(result["trials"], key=lambda r: -r["val_acc"])[:SHOWN]:
        scores = [f"{record['val'][head]:.3f}" if head in record["val"] else "-" for head in heads]
        settings = [_number(record["settings"][name]) for name in names]
        row = [str(record["trial"]), f"{record['val_acc']:.4f}", *scores, *settings]
        rows.append([*row, record["stage"], str(record["epochs"])])
    parts = [table(["trial", "val_acc", *heads, *names, "stage", "epochs"], rows)]
    early = sum(record["stopped"] == "halving" for record in result["trials"])
    count, each = len(result["trials"]), sum(record["seconds"] for record in result["trials"])
    said = f"{count} trials in {each:.1f} s, {early} of them stopped early; best: trial {best['trial']}, by the "
    parts.append(said + result["selection"]["rule"])
    if result["importance"]:
        shares = ", ".join(f"{name} {share:.2f}" for name, share in result["importance"].items())
        parts.append(f"what being among the best has to do with: {shares}")
    told = result["final"]["notes"] if result["final"] else []
    parts += [f"note: {note}" for note in result["notes"] if note not in told]
    if result["final"]:
        parts += ["trained once with the best settings, then tested:", one_run(result["final"])]
    else:
        options = " ".join(f"--{name.replace('_', '-')} {_option(name, v)}" for name, v in best["settings"].items())
        parts.append(f"no test image was looked at; --final trains with the best settings, {options}, and tests once")
    return "\n\n".join(parts)


def found(result: dict[str, Any]) -> str:
    """Return what `transfer lr-find` prints: the rates that it suggests."""
    rows = [[name.replace("_", " "), f"{result[name]:.3g}"] for name in ("steepest", "minimum_over_ten")]
    return table(["rate", ""], rows) + f"\n\nsuggested: --lr {result['suggestion']:.2g}"


def landscape(path: Path, result: dict[str, Any]) -> None:
    """Write a PNG of a search's trials: the plane of the two numbers that matter most, and accuracy by each setting.

    In the plane, trials that were stopped early are the small dots, and the best is the star.
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
    places = list(figure.subplots(tall, wide, squeeze=False).ravel())
    for spare in places[panels:]:
        spare.set_axis_off()
    if len(numbers) == 2:
        place = places.pop(0)
        x, y = ([record["settings"][name] for record in trials] for name in numbers)
        order = np.argsort(values, kind="stable")  # the best on top
        low = np.quantile(values, 0.2)  # what does not learn at all would hide all other differences
        sizes = np.where([record["stopped"] != "" for record in trials], 9, 32)[order]
        dots = place.scatter(np.array(x)[order], np.array(y)[order], c=values[order], vmin=low, s=sizes)
        place.plot(best["settings"][numbers[0]], best["settings"][numbers[1]], "*", color=RED, markersize=14)
        figure.colorbar(dots, ax=place, label="val_acc", extend="min")
        place.set(xlabel=numbers[0], ylabel=numbers[1], xscale=_scale(x), yscale=_scale(y))
    for name, place in zip(names, places, strict=False):
        for stage, colour in (("coarse", BLUE), ("fine", RED)):
            some = [record for record in trials if record["stage"] == stage]
            for early, marker in ((True, "x"), (False, "o")):
                here = [r for r in some if (r["stopped"] != "") == early]
                label = f"{stage}{', stopped early' if early else ''}"
                x, y = [r["settings"][name] for r in here], [r["val_acc"] for r in here]
                if here:
                    place.plot(x, y, marker, color=colour, markersize=4, alpha=0.7, label=label)
        place.set(xlabel=name, ylabel="val_acc", xscale=_scale([r["settings"][name] for r in trials]))
        place.grid(axis="y", color="0.92")
        place.spines[["top", "right"]].set_visible(False)
    places[0].legend(frameon=False, fontsize=8)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png")


def rates(path: Path, result: dict[str, Any]) -> None:
    """Write a PNG of a range test: the loss, smoothed and not, by learning rate, and what is suggested."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 4.5), dpi=110, layout="constrained")
    place = figure.subplots()
    curve = result["curve"]
    place.plot(curve["rate"], curve["loss"], color="0.8", linewidth=1, label="each batch")
    place.plot(curve["rate"], curve["smoothed"], color=BLUE, label="smoothed")
    for name, style in (("steepest", "-"), ("minimum_over_ten", "--")):
        place.axvline(result[name], color=RED, linestyle=style, linewidth=1, label=name.replace("_", " "))
    smooth = [value for value in curve["smoothed"] if math.isfinite(value)]
    low, high = min(smooth), smooth[0]
    place.set(xscale="log", xlabel="learning rate", ylabel="loss", ylim=(low - 0.2 * (high - low), high * 1.5))
    place.spines[["top", "right"]].set_visible(False)
    place.legend(frameon=False, fontsize=8)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png")


def _scale(values: Sequence[Any]) -> str:
    plain = all(isinstance(value, float | int) and value > 0 for value in values)  # not words, and no 0
    return "log" if plain and max(values) >= 10 * min(values) else "linear"


def _number(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _option(name: str, value: Any) -> str:
    if name == "hidden":
        return "" if value == "0" else str(value).replace("-", ",")
    return f"{value:.4g}" if isinstance(value, float) else str(value)
