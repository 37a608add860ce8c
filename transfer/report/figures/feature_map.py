"""Features in the plane, coloured by object and by domain."""

from typing import Any

import numpy as np
from markupsafe import Markup

from transfer.adaptation.feature_map import class_colours, separate_labels
from transfer.report.figures.svg import sheet, short

DOMAINS = ("#3b8fd1", "#e08a00", "#1fa37a", "#c95fa0", "#8a8a8a", "#b3a11a")
MARKS = "o^sDvP"
NAMED = 40  # classes at most whose names fit
NAME = 16


def drawings(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Return for each state its ``title`` and figures ``objects`` and ``domains``."""
    drawn = []
    for i, state in enumerate(found.get("states", [])):
        places = np.array(state["places"])
        if len(places):
            marks = {key: (np.array(state[key]), found["names"][key]) for key in ("objects", "domains")}
            drawn.append(
                {
                    "title": state["title"],
                    "n": len(places),
                    "objects": _objects(f"map-{i}-objects", places, *marks["objects"], marks["domains"][0]),
                    "domains": _domains(f"map-{i}-domains", places, *marks["domains"]),
                }
            )
    return drawn


def _panel(figure: Any, places: np.ndarray, title: str) -> Any:
    panel = figure.subplots()
    panel.set(xticks=[], yticks=[], xmargin=0.08)
    panel.spines[:].set_visible(False)
    panel.set_title(title)
    return panel


def _domains(name: str, places: np.ndarray, which: np.ndarray, names: list[str]) -> Markup:
    with sheet(name, "map of features, coloured by domain", 4.2, 4.1) as (figure, drawn):
        panel = _panel(figure, places, "by domain")
        present = np.unique(which[which >= 0])
        for k in present:
            rows = which == k
            look = {"color": DOMAINS[k % 6], "marker": MARKS[k % 6], "s": 11, "alpha": 0.8, "linewidths": 0}
            panel.scatter(*places[rows].T, label=f"{short(names[k].replace('_', ' '), NAME)} ({rows.sum()})", **look)
        if len(present):
            panel.legend(loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=3, handletextpad=0.1, columnspacing=0.8)
    return drawn.svg


def _objects(name: str, places: np.ndarray, which: np.ndarray, names: list[str], domain: np.ndarray) -> Markup:
    with sheet(name, "map of features, coloured by object", 4.2, 4.1) as (figure, drawn):
        panel = _panel(figure, places, "by object")
        colours = class_colours(len(names))
        for k in np.unique(domain[domain >= 0]):
            rows = (domain == k) & (which >= 0)
            look = {"marker": MARKS[k % 6], "s": 11, "alpha": 0.8, "linewidths": 0}
            panel.scatter(*places[rows].T, c=colours[which[rows]], **look)
        present = np.unique(which[which >= 0])
        if 0 < len(present) <= NAMED:
            middle = np.stack([np.median(places[which == k], axis=0) for k in present])
            extent = np.maximum(np.ptp(places, axis=0), 1e-12)
            said = [short(names[k].replace("_", " "), NAME) for k in present]
            sizes = np.array([[0.0145 * len(text), 0.042] for text in said])
            for text, (x, y) in zip(said, separate_labels(middle / extent, sizes) * extent, strict=True):
                panel.text(x, y, text, fontsize=8, ha="center", va="center", gid="named")
    return drawn.svg
