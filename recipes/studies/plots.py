"""Numbers -> plots."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from transfer.runtime.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's: told apart by colour-blind people, too.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000", "#999933", "#882255", "#888888")
STYLES = ("-", "--", ":")

Grid = tuple[np.ndarray, np.ndarray, np.ndarray]
"""x (N,), y (M,) and heights (M, N)."""


Curve = Sequence[float] | Mapping[float, float]
"""Values by epoch, from 1, or y by x."""

Spreads = Mapping[str, tuple[float, float, float]]
"""By name a value, and how low and how high it may be."""


def curves(
    path: Path | None,
    panels: Mapping[str, Mapping[str, Curve]],
    *,
    x: str | Sequence[str],
    y: str,
    log: bool = False,
    log_x: bool = False,
) -> "Figure":
    """Return a figure with a panel of curves each, under the name of each curve.

    Parameters
    ----------
    path : Path or None
        Where to write it as a PNG, if anywhere; a notebook shows what is returned.
    x : str or sequence of str
        What the horizontal axis is, of all panels or of each.
    log, log_x : bool
        Whether the axis of y, or of x, is logarithmic.
    """
    from matplotlib.ticker import LogFormatter

    figure, places = _panels(len(panels))
    labels = [x] * len(panels) if isinstance(x, str) else x
    for place, label, (title, lines) in zip(places, labels, panels.items(), strict=True):
        for i, (name, values) in enumerate(lines.items()):
            if isinstance(values, Mapping):  # points may be few, or only one
                place.plot(list(values), list(values.values()), label=name, marker="o", markersize=4, **_look(i))
            else:
                place.plot(np.arange(1, len(values) + 1), values, label=name, **_look(i))
        place.set(xlabel=label, ylabel=y)
        place.set(xscale="log" if log_x else "linear", yscale="log" if log else "linear")
        if log_x:
            place.xaxis.set_major_formatter("{x:g}")
            place.xaxis.set_minor_formatter(LogFormatter())
        place.set_title(title, loc="left")
        place.spines[["top", "right"]].set_visible(False)
    return _save(figure, places, path)


def dots(path: Path | None, panels: Mapping[str, Mapping[str, Spreads]], *, x: str) -> "Figure":
    """Return a figure with a panel each, a row for each name and a colour for each series.

    Parameters
    ----------
    path : Path or None
        Where to write it as a PNG, if anywhere.
    panels : mapping of str to mapping of str to Spreads
        By title, then by series.
    x : str
        What the values are.
    """
    most = max(len({name for some in series.values() for name in some}) for series in panels.values())
    figure, places = _panels(len(panels), tall=0.4 * most + 1.2)
    for place, (title, series) in zip(places, panels.items(), strict=True):
        rows = list(dict.fromkeys(name for some in series.values() for name in some))
        for i, (label, some) in enumerate(series.items()):
            lift = 0.16 * ((len(series) - 1) / 2 - i)  # whiskers of one row do not cover each other
            middle, low, high = np.array(list(some.values()), float).T
            at = [len(rows) - 1 - rows.index(name) + lift for name in some]
            look = {"color": COLOURS[i % len(COLOURS)], "fmt": "o", "markersize": 5, "linewidth": 1.5}
            place.errorbar(middle, at, xerr=[middle - low, high - middle], label=label, **look)
        place.set(xlabel=x, yticks=range(len(rows)), yticklabels=rows[::-1], ylim=(-0.6, len(rows) - 0.4))
        place.grid(axis="y", color="0.92")
        place.set_title(title, loc="left")
        place.spines[["top", "right"]].set_visible(False)
    return _save(figure, places, path)


def descents(path: Path | None, panels: Mapping[str, tuple[Grid, Mapping[str, np.ndarray]]]) -> "Figure":
    """Return a figure with a panel per surface: its contours, and over them paths (steps, 2) by name.

    With `path` it is written there as a PNG.
    """
    figure, places = _panels(len(panels))
    for place, (title, ((x, y, heights), paths)) in zip(places, panels.items(), strict=True):
        low = heights.min()
        levels = low + (heights.max() - low) * np.linspace(0, 1, 22) ** 2  # closer near the floor
        place.contour(x, y, heights, levels=levels, colors="0.8", linewidths=0.7)
        for i, (name, steps) in enumerate(paths.items()):
            place.plot(*steps.T, label=name, **_look(i))
            place.plot(*steps[-1], "o", color=COLOURS[i % len(COLOURS)], markersize=5)
        place.plot(*next(iter(paths.values()))[0], "k*", markersize=10)
        place.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]), xticks=[], yticks=[])
        place.set_title(title, loc="left")
        place.spines[:].set_color("0.8")
    return _save(figure, places, path)


def _look(i: int) -> dict[str, Any]:
    return {"color": COLOURS[i % len(COLOURS)], "linestyle": STYLES[i % len(STYLES)], "linewidth": 1.5}


def _panels(count: int, tall: float = 4.5) -> tuple[Any, list[Any]]:
    """Return a figure and `count` places in it, `tall` inches each."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    wide = min(count, 2)
    rows = -(-count // wide)
    figure = Figure(figsize=(6.5 * wide, tall * rows + 0.8), dpi=110, layout=ConstrainedLayoutEngine())
    places = figure.subplots(rows, wide, squeeze=False).ravel()
    for spare in places[count:]:
        spare.set_axis_off()
    return figure, list(places[:count])


def _save(figure: Any, places: Sequence[Any], path: Path | None) -> "Figure":
    """With one legend for all panels."""
    handles, names = places[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=3 * min(len(places), 2), frameon=False)
    if path:
        with atomic_write(path) as temporary:
            figure.savefig(temporary, format="png")
    return figure
