"""Reliability diagrams: confidence beside accuracy."""

import numpy as np
from markupsafe import Markup

from transfer.evaluation.calibration import CALIBRATION_BINS, Calibration
from transfer.report.figures.axes import Axis, draw_axes, left_margin
from transfer.report.figures.svg import BLUE, ORANGE, WIDTH, Drawing


def draw_reliability(head: str, curve: Calibration) -> Markup:
    """Return a reliability diagram (Guo et al. 2017), and below it the number of predictions in each bin."""
    drawing = Drawing(f"{head}: reliability diagram", WIDTH, 350)
    shares, counts = Axis(0, 1.02, 238, 45), Axis(0, 1.05 * max(curve.counts.max(), 1), 312, 252, whole=True)
    x = Axis(0, 1, left_margin(shares, counts), WIDTH - 16)
    drawing.text(x.start, 9, f"{head}: expected calibration error {100 * curve.error:.1f} %", size=13)
    drawing.legend(
        [("square", BLUE, "accuracy"), ("square", ORANGE, "gap to confidence")], x.start, 20, WIDTH - x.start
    )
    draw_axes(drawing, x, shares, ylabel="accuracy", grid=False, named=False)
    draw_axes(drawing, x, counts, xlabel="confidence", ylabel="predictions", grid=False)

    def bar(y: Axis, k: int, low: float, high: float, **style: object) -> None:
        left, right = x(k / CALIBRATION_BINS), x((k + 1) / CALIBRATION_BINS)
        drawing.add("rect", x=left, y=y(high), width=right - left, height=y(low) - y(high), **style)

    for k in np.flatnonzero(curve.counts).tolist():
        accuracy, confidence = float(curve.accuracy[k]), float(curve.confidence[k])
        bar(shares, k, 0, accuracy, fill=BLUE, fill_opacity=0.8, stroke="currentColor", stroke_width=0.6)
        gap = sorted((accuracy, confidence))
        bar(shares, k, *gap, fill="none", stroke=ORANGE, stroke_width=2)
        bar(counts, k, 0, float(curve.counts[k]), fill_opacity=0.45)
    drawing.line(x(0), shares(0), x(1), shares(1), stroke_dasharray="4 3")
    return drawing.svg
