"""Confusion matrices: which class was predicted for which."""

from typing import Any

import numpy as np
from markupsafe import Markup

from transfer.report.figures.svg import BLUE, ORANGE, Drawing, shorten, text_width

MAX_DRAWN_CLASSES = 40  # of more, the matrix is unreadable
MAX_NUMBERED_CLASSES = 35  # of more, counts do not fit into the cells
MAX_CLASS_NAME = 22  # characters of a name beside the matrix


def sum_confusions(metrics: list[dict[str, Any]]) -> tuple[list[str], np.ndarray]:
    """Return the classes that occur, and the confusion matrix (true class by predicted class) summed over seeds.

    ``per_class`` of a seed's metrics names only the classes of its ``confusion`` that occur or were predicted.
    """
    metrics = [of_seed for of_seed in metrics if "confusion" in of_seed]
    named: dict[int, str] = {}
    total: np.ndarray | None = None
    for of_seed in metrics:
        matrix = np.array(of_seed["confusion"], dtype=np.int64)
        present = np.flatnonzero(matrix.sum(0) + matrix.sum(1))
        named |= dict(zip(present.tolist(), of_seed["per_class"], strict=True))
        total = matrix if total is None else total + matrix
    if total is None:
        return [], np.zeros((0, 0), dtype=np.int64)
    order = sorted(named)
    return [named[k] for k in order], total[np.ix_(order, order)]


def confused_pairs(names: list[str], matrix: np.ndarray, most: int = 12) -> list[dict[str, Any]]:
    """Return the commonest confusions: ``true``, ``predicted``, ``count`` and ``share`` of the true class's images."""
    errors = matrix * ~np.eye(len(matrix), dtype=bool)
    order = np.argsort(-errors, axis=None, kind="stable")[:most]
    pairs = []
    for i, j in zip(*np.unravel_index(order, errors.shape), strict=True) if len(matrix) else ():
        if errors[i, j]:
            share = float(errors[i, j] / matrix[i].sum())
            pairs.append({"true": names[i], "predicted": names[j], "count": int(errors[i, j]), "share": share})
    return pairs


def draw_confusion(head: str, names: list[str], matrix: np.ndarray) -> Markup | None:
    """Return the matrix as a figure, shares of each row in blue (correct) or orange; None for too many classes."""
    n = len(names)
    if not 0 < n <= MAX_DRAWN_CLASSES:
        return None
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    cell = max(23, 240 / n)
    labels = [shorten(name, MAX_CLASS_NAME) for name in names]
    size = 10 if n > 15 else 11.5
    longest = max(text_width(label, size) for label in labels)
    turned = n > 4 or longest > cell
    left, top, side = longest + 30, 4.0, n * cell
    drawing = Drawing(f"{head}: confusion matrix", left + side + 4, top + side + (longest if turned else 14) + 32)
    for i, j in np.argwhere(matrix):
        strong = 0.85 * share[i, j] if i == j else 0.15 + 0.85 * share[i, j] ** 0.5
        x, y = left + j * cell, top + i * cell
        colour = BLUE if i == j else ORANGE
        drawing.add("rect", x=x, y=y, width=cell, height=cell, fill=colour, fill_opacity=strong)
        if n <= MAX_NUMBERED_CLASSES:
            drawing.text(x + cell / 2, y + cell / 2, f"{matrix[i, j]}", "middle", 12 if n < 8 else 10 if n < 15 else 9)
    for k in range(1, n):
        grid = {"stroke_opacity": 0.1, "stroke_width": 0.6}
        drawing.line(left + k * cell, top, left + k * cell, top + side, **grid)
        drawing.line(left, top + k * cell, left + side, top + k * cell, **grid)
    for k, label in enumerate(labels):
        middle = (k + 0.5) * cell
        drawing.text(left - 6, top + middle, label, "end", size)
        if turned:
            drawing.turned_text(left + middle, top + side + 6, label, "end", size)
        else:
            drawing.text(left + middle, top + side + 12, label, "middle", size)
    drawing.turned_text(10, top + side / 2, "true")
    drawing.text(left + side / 2, drawing.height - 10, "predicted", "middle")
    return drawing.svg
