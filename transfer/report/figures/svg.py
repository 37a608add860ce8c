"""Drawings as inline SVG, with text in the page's own colour so that they read on light and dark pages."""

import unicodedata
from collections.abc import Iterable

from markupsafe import Markup, escape

from transfer.runtime.escape import escape_unprintable

BLUE, ORANGE = "#3b8fd1", "#e08a00"  # correct and wrong: distinct for colour-blind readers, on white and on black
COLOURS = ("#3b8fd1", "#e08a00", "#1fa37a", "#c95fa0", "#b3a11a", "#8a8a8a")  # of series
FONT, WIDTH = 11.5, 420  # pixels, of text and of a plot
MARKERS = {
    "circle": "m-{r} 0a{r} {r} 0 1 0 {d} 0a{r} {r} 0 1 0 -{d} 0z",
    "triangle": "m0 -{d}l{d} {w}h-{w}z",
    "square": "m-{r} -{r}h{d}v{d}h-{d}z",
    "diamond": "m0 -{d}l{d} {d}l-{d} {d}l-{d} -{d}z",
}


class Drawing:
    """An SVG element that grows piece by piece; lengths are pixels, from the top left corner.

    `label` says what it shows, for screen readers. Its height can be set until the end.
    """

    def __init__(self, label: str, width: float, height: float = 0.0) -> None:
        self.label, self.width, self.height = label, width, height
        self.pieces: list[str] = []

    def add(self, tag: str, **attributes: object) -> None:
        """Append an element without content; ``_`` in an attribute's name is written ``-``, except at its end."""
        self._append(tag, "", attributes)

    def _append(self, tag: str, content: str, attributes: dict[str, object]) -> None:
        given = "".join(
            f' {name.rstrip("_").replace("_", "-")}="{escape(_short(value))}"' for name, value in attributes.items()
        )
        self.pieces.append(f"<{tag}{given}>{escape(content)}</{tag}>" if content else f"<{tag}{given}/>")

    def text(self, x: float, y: float, text: str, anchor: str = "start", size: float = FONT, **more: object) -> None:
        """Write `text` with its middle at the height `y`; `anchor` is start, middle or end."""
        placed = {"x": x, "y": y + 0.35 * size, "text_anchor": anchor, "font_size": size}
        self._append("text", escape_unprintable(text), placed | more)

    def turned_text(self, x: float, y: float, text: str, anchor: str = "middle", size: float = FONT) -> None:
        """Write `text` upwards through (x, y)."""
        self.text(x, y, text, anchor, size, transform=f"rotate(-90 {_short(x)} {_short(y)})")

    def line(self, x1: float, y1: float, x2: float, y2: float, **more: object) -> None:
        """Draw a straight line, in the colour of text unless `more` has another ``stroke``."""
        self._append("line", "", {"x1": x1, "y1": y1, "x2": x2, "y2": y2, "stroke": "currentColor"} | more)

    def markers(
        self, points: Iterable[tuple[float, float]], shape: str = "circle", r: float = 2, **more: object
    ) -> None:
        """Draw a marker of radius `r` at each point, all as one element."""
        form = MARKERS[shape].format(r=_short(r), d=_short(2 * r), w=_short(4 * r))
        if shape in ("triangle", "diamond"):  # as large to the eye as a circle
            form = MARKERS[shape].format(r=_short(0.7 * r), d=_short(1.3 * r), w=_short(2.6 * r))
        path = "".join(f"M{_short(x)} {_short(y)}{form}" for x, y in points)
        if path:
            self._append("path", "", {"d": path} | more)

    def picture(self, x: float, y: float, side: float, address: str, title: str) -> None:
        """Draw the image at `address`, a data URI, into a square; `title` is shown under the pointer."""
        given = f'x="{_short(x)}" y="{_short(y)}" width="{_short(side)}" height="{_short(side)}"'
        named = f"<title>{escape(escape_unprintable(title))}</title>"
        self.pieces.append(f'<image {given} href="{escape(address)}">{named}</image>')

    def legend(self, entries: list[tuple[str, str, str]], x: float, y: float, width: float) -> float:
        """Write (marker, colour, text) in rows of at most `width` from `y` downwards; return the lower end."""
        column = x
        for shape, colour, text in entries:
            length = text_width(text) + 26
            if column > x and column + length > x + width:
                column, y = x, y + 17
            self.markers([(column + 5, y + 8)], shape, 3.5, fill=colour)
            self.text(column + 13, y + 8, text)
            column += length
        return y + 17 if entries else y

    @property
    def svg(self) -> Markup:
        """The element, as wide as its place and at most as wide as it was drawn."""
        size = f"{_short(self.width)} {_short(self.height)}"
        start = f'<svg role="img" aria-label="{escape(escape_unprintable(self.label))}" viewBox="0 0 {size}"'
        body = "\n".join(self.pieces)
        return Markup(f'{start} fill="currentColor" style="max-width:{_short(self.width)}px">\n{body}\n</svg>')


def _short(value: object) -> object:
    return f"{round(float(value), 2):g}" if isinstance(value, int | float) else value


def text_width(text: str, size: float = FONT) -> float:
    """Return about how wide a text is, in pixels: the reader's font is not known."""
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    return (0.57 * len(text) + 0.43 * wide) * size


def shorten(name: str, length: int) -> str:
    """Return a name on one line, cut to at most `length` characters.

    Examples
    --------
    >>> shorten("desktop  computer", 20), shorten("desktop computer", 8)
    ('desktop computer', 'desktop…')
    """
    line = escape_unprintable(" ".join(name.split()))
    return line if len(line) <= length else f"{line[: length - 1].rstrip()}…"
