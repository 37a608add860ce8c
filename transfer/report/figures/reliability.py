"""Confidence beside accuracy."""

import numpy as np
from markupsafe import Markup

from transfer.evaluation.calibration import BINS, Calibration
from transfer.report.figures.svg import BAD, GOOD, INK, sheet


def drawing(head: str, number: int, found: Calibration) -> Markup:
    """Return a reliability diagram (Guo et al. 2017), and below it how many answers each bin has."""
    edges = np.arange(BINS) / BINS
    with sheet(f"reliability-{number}", f"{head}: reliability diagram", height=3.6) as (figure, drawn):
        top, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        full = found.counts > 0
        bars = {"width": 1 / BINS, "align": "edge", "linewidth": 0.6}
        top.bar(edges[full], found.accuracy[full], color=GOOD, alpha=0.8, edgecolor=INK, label="accuracy", **bars)
        gap = found.confidence[full] - found.accuracy[full]
        low = np.minimum(found.confidence[full], found.accuracy[full])
        look = {"facecolor": "none", "edgecolor": BAD, "hatch": "////", "label": "gap to confidence"}
        top.bar(edges[full], np.abs(gap), bottom=low, **look, **bars)
        top.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle="--")
        top.set(ylim=(0, 1.02), xlim=(0, 1), ylabel="right")
        top.set_title(f"{head}: expected calibration error {100 * found.error:.1f} %")
        top.legend(loc="upper left")
        below.bar(edges, found.counts, color=INK, alpha=0.45, **bars)
        below.set(xlabel="confidence", ylabel="answers")
    return drawn.svg
