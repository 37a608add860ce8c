"""Reliability diagrams: confidence beside accuracy."""

import numpy as np
from markupsafe import Markup

from transfer.evaluation.calibration import CALIBRATION_BINS, Calibration
from transfer.report.figures.svg import BLUE, INK, ORANGE, svg_figure


def draw_reliability(head: str, number: int, curve: Calibration) -> Markup:
    """Return a reliability diagram (Guo et al. 2017), and below it the number of predictions in each bin."""
    edges = np.arange(CALIBRATION_BINS) / CALIBRATION_BINS
    with svg_figure(f"reliability-{number}", f"{head}: reliability diagram", height=3.6) as (figure, drawn):
        top, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        full = curve.counts > 0
        bars = {"width": 1 / CALIBRATION_BINS, "align": "edge", "linewidth": 0.6}
        top.bar(edges[full], curve.accuracy[full], color=BLUE, alpha=0.8, edgecolor=INK, label="accuracy", **bars)
        gap = curve.confidence[full] - curve.accuracy[full]
        low = np.minimum(curve.confidence[full], curve.accuracy[full])
        style = {"facecolor": "none", "edgecolor": ORANGE, "hatch": "////", "label": "gap to confidence"}
        top.bar(edges[full], np.abs(gap), bottom=low, **style, **bars)
        top.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle="--")
        top.set(ylim=(0, 1.02), xlim=(0, 1), ylabel="accuracy")
        top.set_title(f"{head}: expected calibration error {100 * curve.error:.1f} %")
        top.legend(loc="upper left")
        below.bar(edges, curve.counts, color=INK, alpha=0.45, **bars)
        below.set(xlabel="confidence", ylabel="predictions")
    return drawn.svg
