"""Matplotlib figures as inline SVG, with text in the page's own colour so that they read on light and dark pages."""

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from markupsafe import Markup, escape

from transfer.runtime.escape import escape_unprintable

INK = "#010203"  # placeholder for the text colour of the page
BLUE, ORANGE = "#3b8fd1", "#e08a00"  # correct and wrong: distinct for colour-blind readers, on white and on black

SVG_STYLE: Any = {
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
def svg_figure(name: str, label: str, width: float = 4.4, height: float = 3.0) -> Iterator[tuple[Any, "InlineSvg"]]:
    """Yield a matplotlib figure to draw on, and the object that holds its SVG afterwards.

    Its `name` is unique on the page, so that the definitions of two figures do not collide; `label` says what it shows,
    for screen readers; its size is in inches.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(SVG_STYLE | {"svg.hashsalt": name}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the browser finds the glyph
        figure = Figure(figsize=(width, height), layout="constrained")
        drawn = InlineSvg()
        yield figure, drawn
        file = io.StringIO()
        figure.savefig(
            file, format="svg", transparent=True, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type"))
        )
        drawn.svg = _inline(file.getvalue(), label, width)


def shorten(name: str, length: int) -> str:
    """Return a name on one line, cut to at most `length` characters.

    Examples
    --------
    >>> shorten("desktop  computer", 20), shorten("desktop computer", 8)
    ('desktop computer', 'desktop…')
    """
    line = escape_unprintable(" ".join(name.split()))  # fonts cannot draw lone surrogates
    return line if len(line) <= length else f"{line[: length - 1].rstrip()}…"


class InlineSvg:
    """Holds the SVG of a finished figure."""

    svg = Markup("")


def _inline(text: str, label: str, width: float) -> Markup:
    """Return the bare SVG element with a maximum width; ids of groups are removed or become classes."""
    body = text[text.index("<svg") :].replace(INK, "currentColor")
    body = body.replace('<g id="named"', '<g class="named"')
    body = re.sub(r'<g id="[^"]*"', "<g", body)
    start = f'<svg role="img" aria-label="{escape(label)}" style="max-width:{96 * width:.0f}px"'
    return Markup(re.sub(r'<svg (width|height)="[^"]*" (width|height)="[^"]*"|<svg', start, body, count=1))
