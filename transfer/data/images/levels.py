"""Levels of deep images: which values of 16-bit, integer and float images are read as black and as white.

An 8-bit file says what is white; a float file does not. One image cannot tell either: of a set in [0, 1], some images
peak at 1.03 and some at 0.9. So one pair of levels holds for all images of a set, and is saved with the model.
"""

from collections.abc import Iterator

import numpy as np

Levels = tuple[tuple[str, float, float], ...]
"""For each kind of deep image its black and its white value; none where a set has no deep image."""

DEFAULT_LEVELS: Levels = (("uint16", 0.0, 65535.0), ("int32", 0.0, 65535.0), ("float32", 0.0, 1.0))
"""Of images without a set, by their type alone."""

KINDS = tuple(kind for kind, _, _ in DEFAULT_LEVELS)
SMALL_SHARE = 1 / 8  # of the levels, which images use; they lose 3 of 8 bits and look black

_NAMES = {"uint16": "16-bit", "int32": "integer", "float32": "float"}
_USUAL = (1.0, 255.0, 65535.0, 2.0**31 - 1)  # white of usual scales
_OVERSHOOT = 1.1  # times white: resampling and sharpening go beyond it, by less than a tenth
_TRIMMED = 0.05  # share of images whose extremes may be those of hot pixels


def find_kind(mode: str) -> str:
    """Return the kind of a Pillow image's `mode`; an empty string for images of 8 bits.

    Examples
    --------
    >>> find_kind("I;16B"), find_kind("I"), find_kind("F"), find_kind("RGB")
    ('uint16', 'int32', 'float32', '')
    """
    return "uint16" if mode.startswith("I;16") else {"I": "int32", "F": "float32"}.get(mode, "")


def scale_to_bytes(values: np.ndarray, black: float, white: float) -> np.ndarray:
    """Return `values`, any shape, as uint8: black and less is 0, white and more 255, and what is not a number 0."""
    grey = np.nan_to_num(values.astype(np.float64), nan=black, posinf=white, neginf=black)
    grey = (grey - black) * np.float64(255.0 / (white - black))
    return np.rint(grey.clip(0, 255, out=grey), out=grey).astype(np.uint8)


def choose_levels(depths: np.ndarray) -> Levels:
    """Return the levels of a set from the depths of its images (N, 3); see `transfer.data.images.depths`.

    16-bit images have those of their type. For others, white is the least usual scale (1, 255, 65535, 2^31 - 1) that
    holds all images, of floats with a tenth more for overshoot, or the largest value where floats use little of it.
    Black is 0, or, where values are clearly negative, minus white or the least value. Extremes of 5 % of the images do
    not count. A kind without an image has the default levels.
    """
    found = {KINDS[int(code)]: depths[depths[:, 0] == code, 1:] for code in np.unique(depths[:, 0]) if code >= 0}
    if not found:
        return ()
    choose = {"int32": _choose_integer_levels, "float32": _choose_float_levels}
    defaults = {kind: (black, white) for kind, black, white in DEFAULT_LEVELS}
    chosen = {kind: choose[kind](*_trim(extremes)) for kind, extremes in found.items() if kind in choose}
    return tuple((kind, *(defaults | chosen)[kind]) for kind in KINDS)


def describe_levels(depths: np.ndarray, levels: Levels) -> Iterator[tuple[str, list[str]]]:
    """Yield for each kind of deep image how its images are read, and what is odd about it."""
    for code, (kind, black, white) in enumerate(levels):
        lows, highs = depths[depths[:, 0] == code, 1:].T
        if not len(lows):
            continue
        low, high, odd = lows.min(), highs.max(), []
        name = f"{_NAMES[kind]} images"
        used = (min(np.sort(highs)[-1 - int(_TRIMMED * len(highs))], white) - max(low, black)) / (white - black)
        if used < SMALL_SHARE:
            part = f"{name} use {100 * used:.2g} % of the range {black:g} to {white:g}"
            odd.append(f"{part}, so that the network sees hardly any contrast: scale the files to the whole range")
        beyond = int((highs > white + (_OVERSHOOT - 1) * (white - black)).sum())
        if beyond:
            odd.append(f"{beyond} of {len(highs)} {name} have values far above {white:g} (up to {high:g}): clipped")
        yield f"{name} from {low:g} to {high:g}: read as {black:g} to {white:g}", odd


def _trim(extremes: np.ndarray) -> tuple[float, float]:
    """Return the least and the largest value of all but 5 % of the images; `extremes` is (N, 2)."""
    skipped = int(_TRIMMED * len(extremes))
    return float(np.sort(extremes[:, 0])[skipped]), float(np.sort(extremes[:, 1])[len(extremes) - 1 - skipped])


def _choose_integer_levels(low: float, high: float) -> tuple[float, float]:
    if _is_signed(low, high):
        return low, max(high, low + 1)
    return 0.0, next((white for white in _USUAL if high <= white), high)


def _choose_float_levels(low: float, high: float) -> tuple[float, float]:
    top = max(high, -low) if _is_signed(low, high) else high
    if top <= 0:
        return 0.0, 1.0  # black images
    usual = next((white for white in _USUAL if top <= _OVERSHOOT * white), None)
    fits = usual is not None and top >= SMALL_SHARE * usual
    if _is_signed(low, high):
        return (-usual, usual) if usual and fits else (low, max(high, low + 1))
    return 0.0, usual if usual and fits else top


def _is_signed(low: float, high: float) -> bool:
    """Return whether values are negative by more than the overshoot of resampling."""
    return low < -(_OVERSHOOT - 1) * max(high, 0.0)
