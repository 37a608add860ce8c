"""Label-efficiency curves: test accuracy by number of labels, a curve for each strategy that picks them."""

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from transfer.report.figures.axes import Axis, draw_axes, draw_curve, left_margin
from transfer.report.figures.svg import COLOURS, WIDTH, Drawing


def draw_label_curves(
    title: str, labels: Sequence[int], curves: Mapping[str, Sequence[float]], goal: float | None = None
) -> Markup:
    """Return a drawing of `curves` by the name of their strategy, with a value for each of `labels`.

    A dashed line marks the `goal`.
    """
    drawing = Drawing(f"{title}, by number of labels", WIDTH)
    colours = {name: COLOURS[k % len(COLOURS)] for k, name in enumerate(curves)}
    top = drawing.legend([("circle", colour, name) for name, colour in colours.items()], 20, 20, WIDTH - 20) + 6
    values = [value for curve in curves.values() for value in curve]
    vertical = Axis.around([*values, *([] if goal is None else [goal])], top + 200, top)
    horizontal = Axis.around(labels, left_margin(vertical), WIDTH - 16, whole=True)
    drawing.text(horizontal.start, 9, title, size=13)
    draw_axes(drawing, horizontal, vertical, xlabel="labels")
    if goal is not None:
        pixel = vertical(goal)
        drawing.line(horizontal.start, pixel, horizontal.end, pixel, stroke_opacity=0.6, stroke_dasharray="4 3")
    for name, curve in curves.items():
        draw_curve(drawing, horizontal, vertical, labels, curve, colours[name])
    drawing.height = vertical.start + 38
    return drawing.svg
