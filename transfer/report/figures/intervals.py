"""Values with intervals, one below the other."""

from collections.abc import Sequence

from markupsafe import Markup

from transfer.report.figures.axes import FAINT, Axis
from transfer.report.figures.svg import BLUE, WIDTH, Drawing, shorten, text_width

MAX_NAME = 26  # characters
ROW = 30  # pixels


def draw_intervals(title: str, rows: Sequence[tuple[str, float, tuple[float, float] | None]]) -> Markup:
    """Return each of `rows` (name, value, ends of its interval) as a dot on a line; values are at most 100."""
    drawing = Drawing(f"{title} of each run", WIDTH, 56 + ROW * len(rows))
    names = [shorten(name, MAX_NAME) for name, *_ in rows]
    left, lower = 10 + max(map(text_width, names)), 26 + ROW * len(rows)
    x = Axis.around([v for _, value, ends in rows for v in (value, *(ends or ()))], left, WIDTH - 16)
    x = Axis(x.low, min(x.high, 100.5), x.start, x.end)
    drawing.text(left, 9, title, size=13)
    for value, text in x.ticks():
        drawing.line(x(value), 24, x(value), lower, **FAINT)
        drawing.text(x(value), lower + 12, text, "middle", 11)
    drawing.line(left, lower, WIDTH - 16, lower)
    for i, (name, (_, value, ends)) in enumerate(zip(names, rows, strict=True)):
        y = 24 + ROW * (i + 0.5)
        drawing.text(left - 8, y, name, "end")
        if ends:
            drawing.line(x(ends[0]), y, min(x(ends[1]), x.end), y, stroke=BLUE, stroke_width=4, stroke_opacity=0.45)
        drawing.markers([(x(value), y)], r=4, fill=BLUE)
    return drawing.svg
