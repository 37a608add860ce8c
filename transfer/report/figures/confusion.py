"""Which class was taken for which."""

from typing import Any

import numpy as np
from markupsafe import Markup

from transfer.report.figures.svg import BAD, GOOD, INK, sheet, short

DRAWN = 40  # classes at most that are readable as a matrix
NUMBERED = 35  # classes at most whose counts are written into the cells
NAME = 22  # letters of a name beside the matrix


def counts(reports: list[dict[str, Any]]) -> tuple[list[str], np.ndarray]:
    """Return the classes that occur and how often each (row) was called each (column), over the reports of all seeds.

    ``per_class`` of a report names those classes of its ``confusion`` alone that occur or were called.
    """
    reports = [report for report in reports if "confusion" in report]
    named: dict[int, str] = {}
    total: np.ndarray | None = None
    for report in reports:
        matrix = np.array(report["confusion"], dtype=np.int64)
        there = np.flatnonzero(matrix.sum(0) + matrix.sum(1))
        named |= dict(zip(there.tolist(), report["per_class"], strict=True))
        total = matrix if total is None else total + matrix
    if total is None:
        return [], np.zeros((0, 0), dtype=np.int64)
    order = sorted(named)
    return [named[k] for k in order], total[np.ix_(order, order)]


def pairs(names: list[str], matrix: np.ndarray, most: int = 12) -> list[dict[str, Any]]:
    """Return the commonest confusions: ``true``, ``called``, ``count`` and the ``share`` of that class's images."""
    wrong = matrix * ~np.eye(len(matrix), dtype=bool)
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    found = []
    for i, j in zip(*np.unravel_index(order, wrong.shape), strict=True) if len(matrix) else ():
        if wrong[i, j]:
            share = wrong[i, j] / matrix[i].sum()
            found.append({"true": names[i], "called": names[j], "count": int(wrong[i, j]), "share": float(share)})
    return found


def drawing(head: str, number: int, names: list[str], matrix: np.ndarray) -> Markup | None:
    """Return the matrix as a figure, shares of each row as blue (right) or orange; None of too many classes."""
    from matplotlib.colors import to_rgb

    n = len(names)
    if not 0 < n <= DRAWN:
        return None
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    pixels = np.zeros((n, n, 4))
    diagonal = np.eye(n, dtype=bool)
    pixels[..., :3] = np.where(diagonal[..., None], to_rgb(GOOD), to_rgb(BAD))
    pixels[..., 3] = np.where(matrix > 0, np.where(diagonal, 0.85 * share, 0.15 + 0.85 * np.sqrt(share)), 0)
    side = max(2.6, min(0.24 * n, 9.0))
    said = [short(name, NAME) for name in names]
    margin = 0.45 + 0.075 * max(map(len, said))
    with sheet(f"confusion-{number}", f"{head}: confusion matrix", side + margin, side + margin) as (figure, drawn):
        place = figure.subplots()
        place.imshow(pixels, interpolation="nearest")
        place.set_xticks(range(n), said, rotation=90 if n > 4 else 0)
        place.set_yticks(range(n), said)
        place.tick_params(length=0)
        place.set(xlabel="answered", ylabel="true")
        place.set_xticks(np.arange(n - 1) + 0.5, minor=True)
        place.set_yticks(np.arange(n - 1) + 0.5, minor=True)
        place.tick_params(which="minor", length=0)
        place.grid(which="minor", color=INK, alpha=0.1, linewidth=0.4)
        place.spines[:].set_visible(False)
        for i, j in np.argwhere(matrix) if n <= NUMBERED else ():
            place.text(j, i, f"{matrix[i, j]}", ha="center", va="center", fontsize=9 if n < 15 else 6.5)
    return drawn.svg
