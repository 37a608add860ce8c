"""Axes of a drawing: values to pixels, ticks, curves."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from transfer.report.figures.svg import FONT, Drawing, text_width

FAINT = {"stroke_opacity": 0.13, "stroke_width": 0.7}  # grid lines


@dataclass(frozen=True)
class Axis:
    """Values from `low` to `high` as pixels from `start` to `end`, on a linear or a logarithmic scale."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False
    whole: bool = False  # ticks at integers only

    @classmethod
    def around(
        cls, values: Iterable[float], start: float, end: float, log: bool = False, whole: bool = False
    ) -> "Axis":
        """Return an axis that holds all finite `values`, with a margin."""
        finite = [value for value in values if math.isfinite(value) and (value > 0 or not log)] or [1.0]
        low, high = min(finite), max(finite)
        if log:
            margin = max((high / low) ** 0.05, 1.25)
            return cls(low / margin, high * margin, start, end, log, whole)
        span, size = high - low, max(abs(low), abs(high))
        margin = 0.05 * (span if span > 1e-9 * size else size) or 1.0
        return cls(low - margin, high + margin, start, end, log, whole)

    def __call__(self, value: float) -> float:
        """Return the pixel of a value.

        Examples
        --------
        >>> Axis(0, 10, 100, 200)(5), Axis(0.01, 1, 0, 100, log=True)(0.1)
        (150.0, 50.0)
        """
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return self.start + (self.end - self.start) * (value - low) / (high - low)

    def ticks(self) -> list[tuple[float, str]]:
        """Return some round values on the axis, and their labels.

        Examples
        --------
        >>> [text for _, text in Axis(0.9, 1.02, 0, 100).ticks()]
        ['0.90', '0.95', '1.00']
        >>> [text for _, text in Axis(0.003, 0.03, 0, 100, log=True).ticks()]
        ['0.005', '0.01', '0.02']
        """
        if self.log:
            exponents = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            sparse = [10.0**e for e in exponents if self.low <= 10.0**e <= self.high]
            dense = [m * 10.0**e for e in exponents for m in (1, 2, 5) if self.low <= m * 10.0**e <= self.high]
            shown = (sparse if len(sparse) > 2 else dense) or [math.sqrt(self.low * self.high)]
            return [(value, f"{value:.4g}") for value in shown[:: math.ceil(len(shown) / 7)]]
        wanted = max(3, 0.6 * abs(self.end - self.start) / (55 if self.end > self.start else 32))  # labels are wide
        power = 10.0 ** math.floor(math.log10((self.high - self.low) / wanted))
        steps = (m * power for m in (10, 5, 2.5, 2, 1, 0.5))
        step = next(s for s in steps if math.floor(self.high / s) - math.ceil(self.low / s) + 1 >= wanted)
        if self.whole:
            step = max(round(step), 1)
        multiples = range(math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9) + 1)
        largest = max(abs(self.low), abs(self.high))
        if 1e-3 <= largest < 1e7:
            form = f".{next((d for d in range(16) if abs(round(step, d) - step) < 1e-6 * step), 16)}f"
        else:
            form = f".{max(math.ceil(math.log10(largest / step)), 0) + 1}g"
        return [(k * step, f"{k * step:{form}}") for k in multiples]


def draw_axes(
    drawing: Drawing, x: Axis, y: Axis, *, xlabel: str = "", ylabel: str = "", grid: bool = True, named: bool = True
) -> None:
    """Draw a left and a lower axis with ticks and a grid; `named` is whether the lower ticks have labels."""
    for pixel, text in ((y(value), text) for value, text in y.ticks()):
        if grid:
            drawing.line(x.start, pixel, x.end, pixel, **FAINT)
        drawing.text(x.start - 5, pixel, text, "end", 11)
    for pixel, text in ((x(value), text) for value, text in x.ticks()):
        if grid:
            drawing.line(pixel, y.start, pixel, y.end, **FAINT)
        if named:
            drawing.text(pixel, y.start + 11, text, "middle", 11)
    drawing.add("path", d=f"M{x.start:g} {y.end:g}V{y.start:g}H{x.end:g}", fill="none", stroke="currentColor")
    if xlabel:
        drawing.text((x.start + x.end) / 2, y.start + 28, xlabel, "middle")
    if ylabel:
        drawing.turned_text(FONT / 2 + 1, (y.start + y.end) / 2, ylabel)


def left_margin(*axes: Axis) -> float:
    """Return the room that the tick labels of axes, drawn to their left, and a label need, in pixels."""
    return 27 + max((text_width(text, 11) for axis in axes for _, text in axis.ticks()), default=0)


def draw_curve(
    drawing: Drawing, x: Axis, y: Axis, places: Sequence[float], values: Sequence[float], colour: str, dots: bool = True
) -> None:
    """Draw values over places as a line, interrupted where a value is not finite."""
    parts: list[list[tuple[float, float]]] = [[]]
    for place, value in zip(places, values, strict=True):
        if math.isfinite(value):
            parts[-1].append((x(place), y(value)))
        else:
            parts.append([])
    for points in parts:
        path = "".join(f"{'L' if i else 'M'}{a:.5g} {b:.5g}" for i, (a, b) in enumerate(points))
        if path:
            drawing.add("path", d=path, fill="none", stroke=colour, stroke_width=1.7, stroke_linejoin="round")
    if dots:
        drawing.markers([point for points in parts for point in points], r=2.4, fill=colour)
