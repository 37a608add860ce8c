"""Risk-coverage curves: the error rate on the most confident share of the images."""

from typing import Any

from markupsafe import Markup

from transfer.report.figures.axes import Axis, draw_axes, draw_curve, left_margin
from transfer.report.figures.svg import BLUE, WIDTH, Drawing


def draw_risks(uncertainty: dict[str, Any]) -> list[Markup]:
    """Return a figure for each head of ``result["uncertainty"]`` that has a curve."""
    reports = uncertainty.get("heads", {}).items()
    return [_draw_risk(head, report["risk_coverage"]) for head, report in reports if report.get("risk_coverage")]


def _draw_risk(head: str, risk: dict[str, Any]) -> Markup:
    shares, errors = ([100 * point[i] for point in risk["curve"]] for i in (0, 1))
    drawing = Drawing(f"{head}: error rate by share of images answered", WIDTH, 290)
    vertical = Axis(0, 1.05 * max(*errors, 1.0), 250, 45)
    horizontal = Axis(0, 100, left_margin(vertical), WIDTH - 16)
    drawing.text(horizontal.start, 9, f"{head}: mean error rate {100 * risk['area']:.1f} %", size=13)
    draw_axes(drawing, horizontal, vertical, xlabel="images answered, %", ylabel="error rate, %")
    draw_curve(drawing, horizontal, vertical, shares, errors, BLUE, dots=True)
    return drawing.svg
