"""A t-SNE map of the features of two domains before and after adapting."""

import colorsys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from transfer.adaptation.selection.evidence import CandidateEvidence
from transfer.errors import TransferError
from transfer.evaluation.tsne import embed_tsne
from transfer.runtime.escape import escape_unprintable
from transfer.runtime.files import atomic_write

MAX_MAP_ROWS = 2000  # images in a map, of both domains
SOURCE_TARGET_COLOURS = ("#0072B2", "#E69F00")  # blue and orange of Okabe and Ito, safe for colour blindness
MAX_MAP_LABELS = 40  # more class names do not fit on a panel
LETTER = (0.0115, 0.024)  # width and height of a letter, as fractions of the extent of the points


def feature_map(
    path: Path,
    states: Mapping[str, CandidateEvidence],
    *,
    classes: Sequence[str],
    domains: tuple[str, str],
    seed: int = 0,
) -> None:
    """Write a PNG with a row per state: coloured by domain on the left, by object on the right.

    A source image's object is its label, a target image's is its prediction: no target label is used. Neighbourhoods
    are meaningful in such a map, distances between far groups are not. `states` have titles such as before and after;
    `domains` are the names of source and target; `seed` samples at most 2,000 rows.

    Raises
    ------
    TransferError
        Features that are not finite.
    """
    diverged = [title for title, evidence in states.items() if not evidence.finite]
    if diverged:
        raise TransferError(f"--map: features are NaN or infinite ({diverged[0]}): try a lower --lr")

    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12)
    figure = Figure(figsize=(14, 6.9 * len(states) + 0.6), dpi=110, layout=layout)
    domains, classes = (_text(domains[0]), _text(domains[1])), tuple(map(_text, classes))
    figure.suptitle(f"{domains[0]} to {domains[1]}: features by t-SNE", fontsize=16)
    panels = figure.subplots(len(states), 2, squeeze=False)
    bar = tqdm(states.items(), desc="map", unit="t-SNE", disable=None, leave=False)
    for (by_domain, by_object), (title, evidence) in zip(panels, bar, strict=True):
        source, target = sample_map_rows(len(evidence.source_features), len(evidence.target_features), seed)
        points = embed_tsne(np.concatenate([evidence.source_features[source], evidence.target_features[target]]))
        objects = np.concatenate([evidence.source_labels[source], evidence.target_logits[target].argmax(1)])
        side = np.repeat([0, 1], [len(source), len(target)])
        for panel, colouring in ((by_domain, "domains"), (by_object, "objects")):
            panel.set_title(f"{title}: {colouring}", loc="left", fontsize=13)
            panel.set(xticks=[], yticks=[], xmargin=0.08, ymargin=0.04)
            panel.spines[:].set_color("0.8")
        _draw_domains(by_domain, points, side, domains, seed)
        _draw_objects(by_object, points, side, objects, classes)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png")


def sample_map_rows(source: int, target: int, seed: int = 0, most: int = MAX_MAP_ROWS) -> tuple[np.ndarray, np.ndarray]:
    """Return sorted indices sampled from `source` and `target` rows, at most `most` in all, half of each if possible.

    Examples
    --------
    >>> [len(rows) for rows in sample_map_rows(2535, 795)]
    [1205, 795]
    """
    rng = np.random.default_rng(seed)
    target_size = min(target, max(most // 2, most - source))
    sizes = ((target, target_size), (source, min(source, most - target_size)))
    target_rows, source_rows = (np.sort(rng.permutation(rows)[:size]) for rows, size in sizes)
    return source_rows, target_rows


def _draw_domains(panel: Any, points: np.ndarray, side: np.ndarray, names: tuple[str, str], seed: int) -> None:
    order = np.random.default_rng(seed).permutation(len(side))  # neither domain hides the other
    colours = np.array(SOURCE_TARGET_COLOURS)[side]
    panel.scatter(*points[order].T, c=colours[order], s=12, alpha=0.75, linewidths=0)
    for i, role in enumerate(("source", "target")):
        label = f"{names[i]} ({role}, {int((side == i).sum()):,})"
        panel.scatter([], [], c=SOURCE_TARGET_COLOURS[i], s=40, label=label)
    _legend(panel)


def _draw_objects(
    panel: Any, points: np.ndarray, side: np.ndarray, objects: np.ndarray, classes: Sequence[str]
) -> None:
    from matplotlib.patheffects import withStroke

    colours = class_colours(len(classes))
    for i, label in enumerate(("source: label", "target: prediction")):
        rows = side == i
        style: dict[str, Any] = {"marker": "o^"[i], "linewidths": (0, 0.3)[i], "edgecolors": ("none", "black")[i]}
        panel.scatter(*points[rows].T, c=colours[objects[rows]], s=(12, 20)[i], alpha=(0.5, 0.9)[i], **style)
        panel.scatter([], [], c="0.6", s=40, label=label, **style)
    _legend(panel)
    present = np.unique(objects[side == 0])
    if len(present) > MAX_MAP_LABELS:
        return
    centres = np.stack([_densest(points[(side == 0) & (objects == k)]) for k in present])
    extent = np.maximum(np.ptp(points, axis=0), 1e-12)
    names = [classes[k].replace("_", " ") for k in present]
    sizes = np.array([[LETTER[0] * len(name), LETTER[1]] for name in names])
    for name, (x, y) in zip(names, separate_labels(centres / extent, sizes) * extent, strict=True):
        outline = [withStroke(linewidth=2.5, foreground="white", alpha=0.85)]
        panel.text(x, y, name, fontsize=9, ha="center", va="center", color="0.1", path_effects=outline)


def _text(name: str) -> str:
    """Return a name for matplotlib, without formulas and control characters."""
    return escape_unprintable(name).replace("$", r"\$")


def _legend(panel: Any) -> None:
    """Draw a legend below the panel."""
    style = {"frameon": False, "handletextpad": 0.2, "columnspacing": 1.0}
    panel.legend(loc="upper left", bbox_to_anchor=(0.0, -0.01), ncols=2, fontsize=10, borderaxespad=0.0, **style)


def _densest(points: np.ndarray) -> np.ndarray:
    """Return the point of `points` (N, 2) with the smallest circle around it that holds a third of them."""
    distance = np.linalg.norm(points[:, None] - points[None], axis=2)
    return points[np.quantile(distance, 1 / 3, axis=1).argmin()]


def separate_labels(places: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return label centres (N, 2): `places` (N, 2), raised until boxes of `sizes` (N, 2) do not overlap.

    Examples
    --------
    >>> separate_labels(np.array([[0.0, 0.0], [0.1, 0.1]]), np.array([[1.0, 0.5], [1.0, 0.5]])).tolist()
    [[0.0, 0.0], [0.1, 0.5]]
    """
    out = places.copy()
    order = np.argsort(places[:, 1], kind="stable")
    for i, k in enumerate(order):
        for other in sorted(order[:i], key=lambda j: out[j, 1]):
            spacing = (sizes[k] + sizes[other]) / 2
            if (np.abs(out[k] - out[other]) < spacing).all():
                out[k, 1] = out[other, 1] + spacing[1]
    return out


def class_colours(classes: int) -> np.ndarray:
    """Return a colour per class, RGB in [0, 1], shape (classes, 3): evenly spaced hues, every other one darker."""
    rows = [colorsys.hsv_to_rgb(i / classes, 0.85, 0.6 if i % 2 else 0.95) for i in range(classes)]
    return np.array(rows).reshape(classes, 3)
