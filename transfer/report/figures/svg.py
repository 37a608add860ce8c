"""Figures of matplotlib as SVG inside a page: ink in the page's own colour, so that they read on light and on dark."""

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from markupsafe import Markup, escape

from transfer.runtime.escape import escape_unprintable

INK = "#010203"  # stands for the colour of the page's text
GOOD, BAD = "#3b8fd1", "#e08a00"  # blue and orange: told apart by colour-blind people, on white and on black

LOOK: Any = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a class may be called $x$
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.unicode_minus": False,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
}


@contextmanager
def sheet(name: str, label: str, width: float = 4.4, height: float = 3.0) -> Iterator[tuple[Any, "Sheet"]]:
    """Yield a figure of so many inches to draw on, and what holds it as SVG afterwards.

    Parameters
    ----------
    name : str
        Its own on the page, where what figures define must not be mixed up.
    label : str
        What it shows, for those who cannot see it.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(LOOK | {"svg.hashsalt": name}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the browser has it, or a font that does
        figure = Figure(figsize=(width, height), layout="constrained")
        drawn = Sheet()
        yield figure, drawn
        file = io.StringIO()
        figure.savefig(
            file, format="svg", transparent=True, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type"))
        )
        drawn.svg = _inline(file.getvalue(), label, width)


def short(name: str, letters: int) -> str:
    """Return a name as it fits in a figure: on one line, of so many letters at most.

    Examples
    --------
    >>> short("desktop  computer", 20), short("desktop computer", 8)
    ('desktop computer', 'desktop…')
    """
    line = escape_unprintable(" ".join(name.split()))  # fonts take no half of a character
    return line if len(line) <= letters else f"{line[: letters - 1].rstrip()}…"


class Sheet:
    """A figure that has been drawn."""

    svg = Markup("")


def _inline(text: str, label: str, width: float) -> Markup:
    """Return the SVG element alone, as wide as its place lets it be; groups have a class where they had an id."""
    body = text[text.index("<svg") :].replace(INK, "currentColor")
    body = body.replace('<g id="named"', '<g class="named"')
    body = re.sub(r'<g id="[^"]*"', "<g", body)
    start = f'<svg role="img" aria-label="{escape(label)}" style="max-width:{96 * width:.0f}px"'
    return Markup(re.sub(r'<svg (width|height)="[^"]*" (width|height)="[^"]*"|<svg', start, body, count=1))
