"""Images that are dark, bright, blank, blurred, tiny, of an odd shape, or turned by EXIF alone."""

from collections.abc import Iterator

import numpy as np

from transfer.curation.inspection.finding import Finding, FoundItem
from transfer.curation.inspection.measures import ImageMeasures

DARK_BRIGHT_END = 0.32  # luminance that nearly all pixels of a dark image stay below
BRIGHT_DARK_END, BRIGHT_CONTRAST = 0.9, 0.08  # luminance nearly all pixels of a washed-out image exceed; its contrast
BLANK_CONTRAST = 0.015  # standard deviation of luminance: 4 of 255 levels
BLURRED, BLUR_LEAD = 0.6, 0.15  # the measure of a blurred image, and how far it is above the set's median
TINY_SIDE, TINY_SHARE = 16, 0.25  # pixels of the shorter side; the same as a share of the set's median
DARK_NOTE = "99 % of the pixels have at most {:.0f} % brightness"
BRIGHT_NOTE = "95 % of the pixels have at least {:.0f} % brightness"
ODD_ASPECT, ODD_FACTOR = 3.0, 2.0  # longer over shorter side; the same against the set's median


def find_image_faults(measures: ImageMeasures) -> Iterator[Finding]:
    """Yield a finding for each kind of fault that images have; kinds without an image are left out.

    The thresholds on brightness, contrast and blur are absolute. Those on size, shape and blur also compare with the
    median of the set, so that a set of small or of blurred images does not consist of findings.
    """
    blank = measures.contrast < BLANK_CONTRAST
    dark = (measures.bright_end < DARK_BRIGHT_END) & ~blank
    bright = (measures.dark_end > BRIGHT_DARK_END) & (measures.contrast < BRIGHT_CONTRAST) & ~blank
    yield from _finding("blank", blank, measures.contrast, "contrast {:.3f}", measures.contrast)
    yield from _finding("dark", dark, measures.bright_end, DARK_NOTE, np.ceil(100 * measures.bright_end))
    yield from _finding("bright", bright, -measures.dark_end, BRIGHT_NOTE, np.floor(100 * measures.dark_end))
    blurred = (measures.blur > max(BLURRED, _median(measures.blur) + BLUR_LEAD)) & ~blank
    yield from _finding("blurred", blurred, -measures.blur, "blur {:.2f} of 1", measures.blur)
    shorter = np.minimum(measures.width, measures.height)
    tiny = shorter < max(TINY_SIDE, TINY_SHARE * _median(shorter))
    sizes = [f"{w:.0f} x {h:.0f} pixels" for w, h in zip(measures.width, measures.height, strict=True)]
    yield from _finding("tiny", tiny, shorter, "", sizes)
    odd = measures.aspect > max(ODD_ASPECT, ODD_FACTOR * _median(measures.aspect))
    yield from _finding("odd_shape", odd, -measures.aspect, "", sizes)
    turned = measures.orientation > 1
    yield from _finding("turned", turned, measures.orientation, "EXIF orientation {:.0f}", measures.orientation)


def _median(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else 0.0


def _finding(
    kind: str, found: np.ndarray, order: np.ndarray, note: str, values: np.ndarray | list[str]
) -> Iterator[Finding]:
    rows = np.flatnonzero(found)
    if len(rows):
        rows = rows[np.argsort(order[rows], kind="stable")]
        items = [FoundItem((row,), note.format(values[row]) if note else str(values[row])) for row in rows.tolist()]
        yield Finding(kind, *_TEXTS[kind], items)


_TEXTS = {
    "blank": (
        "Blank images",
        "They show one colour, or nearly so: there is nothing to learn from, and their label is a guess.",
        "Remove them, or take the picture again.",
    ),
    "dark": (
        "Dark images",
        "Nearly all pixels are dark, so that the object can hardly be seen.",
        "Keep them if such images will be predicted, and remove or brighten them otherwise.",
    ),
    "bright": (
        "Washed-out images",
        "Nearly all pixels are close to white and the contrast is low.",
        "Keep them if such images will be predicted, and remove or retake them otherwise.",
    ),
    "blurred": (
        "Blurred images",
        "They have hardly any sharp edge, and clearly fewer than the other images.",
        "Keep them if such images will be predicted, and remove or retake them otherwise.",
    ),
    "tiny": (
        "Tiny images",
        "They are much smaller than the others; enlarged for the network they are blurred. Often they are icons.",
        "Look for the full-size files.",
    ),
    "odd_shape": (
        "Images of an odd shape",
        "They are far longer than wide; the network sees the middle alone, or a squeezed picture.",
        "Crop them to the object, or train with --crop border.",
    ),
    "turned": (
        "Images that are stored turned",
        "EXIF says how to turn them. This program does so; programs that ignore EXIF see them lying on the side.",
        "Nothing for this program. For others, save them upright.",
    ),
}
