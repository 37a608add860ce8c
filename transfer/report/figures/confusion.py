"""Confusion matrices: which class was predicted for which."""

from typing import Any

import numpy as np
from markupsafe import Markup

from transfer.report.figures.svg import BLUE, INK, ORANGE, shorten, svg_figure

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


def draw_confusion(head: str, number: int, names: list[str], matrix: np.ndarray) -> Markup | None:
    """Return the matrix as a figure, shares of each row in blue (correct) or orange; None for too many classes."""
    from matplotlib.colors import to_rgb

    n = len(names)
    if not 0 < n <= MAX_DRAWN_CLASSES:
        return None
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    pixels = np.zeros((n, n, 4))
    diagonal = np.eye(n, dtype=bool)
    pixels[..., :3] = np.where(diagonal[..., None], to_rgb(BLUE), to_rgb(ORANGE))
    pixels[..., 3] = np.where(matrix > 0, np.where(diagonal, 0.85 * share, 0.15 + 0.85 * np.sqrt(share)), 0)
    side = max(2.6, min(0.24 * n, 9.0))
    labels = [shorten(name, MAX_CLASS_NAME) for name in names]
    size = side + 0.45 + 0.075 * max(map(len, labels))
    with svg_figure(f"confusion-{number}", f"{head}: confusion matrix", size, size) as (figure, drawn):
        axis = figure.subplots()
        axis.imshow(pixels, interpolation="nearest")
        axis.set_xticks(range(n), labels, rotation=90 if n > 4 else 0)
        axis.set_yticks(range(n), labels)
        axis.tick_params(length=0)
        axis.set(xlabel="predicted", ylabel="true")
        axis.set_xticks(np.arange(n - 1) + 0.5, minor=True)
        axis.set_yticks(np.arange(n - 1) + 0.5, minor=True)
        axis.tick_params(which="minor", length=0)
        axis.grid(which="minor", color=INK, alpha=0.1, linewidth=0.4)
        axis.spines[:].set_visible(False)
        for i, j in np.argwhere(matrix) if n <= MAX_NUMBERED_CLASSES else ():
            axis.text(j, i, f"{matrix[i, j]}", ha="center", va="center", fontsize=9 if n < 15 else 6.5)
    return drawn.svg
