"""Maps of features in the plane (t-SNE), coloured by object and by domain."""

from typing import Any

import numpy as np
from markupsafe import Markup

from transfer.adaptation.feature_map import class_colours, separate_labels
from transfer.report.figures.svg import shorten, svg_figure

DOMAIN_COLOURS = ("#3b8fd1", "#e08a00", "#1fa37a", "#c95fa0", "#8a8a8a", "#b3a11a")
DOMAIN_MARKERS = "o^sDvP"
MAX_NAMED_CLASSES = 40  # of more, the names do not fit
MAX_LABEL = 16  # characters of a name on the map


def draw_maps(maps: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the ``title`` and the figures ``objects`` and ``domains`` of each state (such as before and after)."""
    drawn = []
    for i, state in enumerate(maps.get("states", [])):
        points = np.array(state["places"])
        if len(points):
            marks = {key: (np.array(state[key]), maps["names"][key]) for key in ("objects", "domains")}
            drawn.append(
                {
                    "title": state["title"],
                    "n": len(points),
                    "objects": _draw_objects(f"map-{i}-objects", points, *marks["objects"], marks["domains"][0]),
                    "domains": _draw_domains(f"map-{i}-domains", points, *marks["domains"]),
                }
            )
    return drawn


def _panel(figure: Any, points: np.ndarray, title: str) -> Any:
    panel = figure.subplots()
    panel.set(xticks=[], yticks=[], xmargin=0.08)
    panel.spines[:].set_visible(False)
    panel.set_title(title)
    return panel


def _dots(domain: int) -> dict[str, Any]:
    return {"marker": DOMAIN_MARKERS[domain % 6], "s": 11, "alpha": 0.8, "linewidths": 0}


def _draw_domains(name: str, points: np.ndarray, which: np.ndarray, names: list[str]) -> Markup:
    with svg_figure(name, "map of features, coloured by domain", 4.2, 4.1) as (figure, drawn):
        panel = _panel(figure, points, "by domain")
        present = np.unique(which[which >= 0])
        for k in present:
            rows = which == k
            label = f"{shorten(names[k].replace('_', ' '), MAX_LABEL)} ({rows.sum()})"
            panel.scatter(*points[rows].T, color=DOMAIN_COLOURS[k % 6], label=label, **_dots(k))
        if len(present):
            panel.legend(loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=3, handletextpad=0.1, columnspacing=0.8)
    return drawn.svg


def _draw_objects(name: str, points: np.ndarray, which: np.ndarray, names: list[str], domain: np.ndarray) -> Markup:
    with svg_figure(name, "map of features, coloured by object", 4.2, 4.1) as (figure, drawn):
        panel = _panel(figure, points, "by object")
        colours = class_colours(len(names))
        for k in np.unique(domain[domain >= 0]):
            rows = (domain == k) & (which >= 0)
            panel.scatter(*points[rows].T, c=colours[which[rows]], **_dots(k))
        present = np.unique(which[which >= 0])
        if 0 < len(present) <= MAX_NAMED_CLASSES:
            middle = np.stack([np.median(points[which == k], axis=0) for k in present])
            extent = np.maximum(np.ptp(points, axis=0), 1e-12)
            labels = [shorten(names[k].replace("_", " "), MAX_LABEL) for k in present]
            sizes = np.array([[0.0145 * len(text), 0.042] for text in labels])
            for text, (x, y) in zip(labels, separate_labels(middle / extent, sizes) * extent, strict=True):
                panel.text(x, y, text, fontsize=8, ha="center", va="center", gid="named")
    return drawn.svg
