"""Plots with matplotlib: curves, dots with intervals, and optimizer paths on a surface."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from transfer.runtime.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# The palette of Okabe and Ito (2008), distinguishable with colour blindness, and three more.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000", "#999933", "#882255", "#888888")
STYLES = ("-", "--", ":")

Grid = tuple[np.ndarray, np.ndarray, np.ndarray]
"""x (N,), y (M,) and heights (M, N)."""

Curve = Sequence[float] | Mapping[float, float]
"""Values by epoch, from 1, or y by x."""

Spreads = Mapping[str, tuple[float, float, float]]
"""By name: a value and the bounds of its interval."""


def draw_curves(
    path: Path | None,
    panels: Mapping[str, Mapping[str, Curve]],
    *,
    x: str | Sequence[str],
    y: str,
    log: bool = False,
    log_x: bool = False,
) -> "Figure":
    """Return a figure with a panel of named curves for each title.

    Parameters
    ----------
    path : Path or None
        PNG to write; None writes nothing (a notebook shows the returned figure).
    panels : mapping of str to mapping of str to Curve
        By title, then by name.
    x : str or sequence of str
        Label of the horizontal axis, of all panels or of each.
    y : str
        Label of the vertical axis.
    log, log_x : bool
        Use a logarithmic axis for y, or for x.
    """
    from matplotlib.ticker import LogFormatter, LogLocator, NullFormatter

    figure, all_axes = _make_panels(len(panels))
    labels = [x] * len(panels) if isinstance(x, str) else x
    for axes, label, (title, lines) in zip(all_axes, labels, panels.items(), strict=True):
        for i, (name, values) in enumerate(lines.items()):
            if isinstance(values, Mapping):  # markers: there may be a single point
                axes.plot(list(values), list(values.values()), label=name, marker="o", markersize=4, **_line_style(i))
            else:
                axes.plot(np.arange(1, len(values) + 1), values, label=name, **_line_style(i))
        axes.set(xlabel=label, ylabel=y)
        axes.set(xscale="log" if log_x else "linear", yscale="log" if log else "linear")
        if log_x:
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter(LogFormatter())
        if log:
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_title(title, loc="left")
        axes.spines[["top", "right"]].set_visible(False)
    return _save(figure, all_axes, path)


def draw_dots(path: Path | None, panels: Mapping[str, Mapping[str, Spreads]], *, x: str) -> "Figure":
    """Return a figure with a panel for each title, a row for each name and a colour for each series.

    Parameters
    ----------
    path : Path or None
        PNG to write; None writes nothing.
    panels : mapping of str to mapping of str to Spreads
        By title, then by series.
    x : str
        Label of the horizontal axis.
    """
    most = max(len({name for spreads in series.values() for name in spreads}) for series in panels.values())
    figure, all_axes = _make_panels(len(panels), height=0.4 * most + 1.2)
    for axes, (title, series) in zip(all_axes, panels.items(), strict=True):
        rows = list(dict.fromkeys(name for spreads in series.values() for name in spreads))
        for i, (label, spreads) in enumerate(series.items()):
            offset = 0.16 * ((len(series) - 1) / 2 - i)  # keeps the whiskers of a row apart
            middle, low, high = np.array(list(spreads.values()), float).T
            heights = [len(rows) - 1 - rows.index(name) + offset for name in spreads]
            style = {"color": COLOURS[i % len(COLOURS)], "fmt": "o", "markersize": 5, "linewidth": 1.5}
            axes.errorbar(middle, heights, xerr=[middle - low, high - middle], label=label, **style)
        axes.set(xlabel=x, yticks=range(len(rows)), yticklabels=rows[::-1], ylim=(-0.6, len(rows) - 0.4))
        axes.grid(axis="y", color="0.92")
        axes.set_title(title, loc="left")
        axes.spines[["top", "right"]].set_visible(False)
    return _save(figure, all_axes, path)


def draw_descents(path: Path | None, panels: Mapping[str, tuple[Grid, Mapping[str, np.ndarray]]]) -> "Figure":
    """Return a figure with a panel per surface: its contours, and paths (steps, 2) by name over them.

    The figure is written to `path` as a PNG, if given.
    """
    figure, all_axes = _make_panels(len(panels))
    for axes, (title, ((x, y, heights), paths)) in zip(all_axes, panels.items(), strict=True):
        low = heights.min()
        levels = low + (heights.max() - low) * np.linspace(0, 1, 22) ** 2  # denser near the minimum
        axes.contour(x, y, heights, levels=levels, colors="0.8", linewidths=0.7)
        for i, (name, steps) in enumerate(paths.items()):
            axes.plot(*steps.T, label=name, **_line_style(i))
            axes.plot(*steps[-1], "o", color=COLOURS[i % len(COLOURS)], markersize=5)
        axes.plot(*next(iter(paths.values()))[0], "k*", markersize=10)
        axes.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]), xticks=[], yticks=[])
        axes.set_title(title, loc="left")
        axes.spines[:].set_color("0.8")
    return _save(figure, all_axes, path)


def _line_style(i: int) -> dict[str, Any]:
    return {"color": COLOURS[i % len(COLOURS)], "linestyle": STYLES[i % len(STYLES)], "linewidth": 1.5}


def _make_panels(count: int, height: float = 4.5) -> tuple[Any, list[Any]]:
    """Return a figure and `count` axes in it, `height` inches each."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    columns = min(count, 2)
    rows = -(-count // columns)
    figure = Figure(figsize=(6.5 * columns, height * rows + 0.8), dpi=110, layout=ConstrainedLayoutEngine())
    all_axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for unused in all_axes[count:]:
        unused.set_axis_off()
    return figure, list(all_axes[:count])


def _save(figure: Any, all_axes: Sequence[Any], path: Path | None) -> "Figure":
    """Add one legend for all panels, write the figure to `path` if given, and return it."""
    handles, names = all_axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=3 * min(len(all_axes), 2), frameon=False)
    if path:
        with atomic_write(path) as temporary:
            figure.savefig(temporary, format="png")
    return figure
