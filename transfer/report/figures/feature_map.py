"""Maps of features in the plane (t-SNE), coloured by object and by domain."""

from typing import Any

import numpy as np
from markupsafe import Markup

from transfer.adaptation.feature_map import class_colours, separate_labels
from transfer.report.figures.axes import Axis
from transfer.report.figures.svg import COLOURS, MARKERS, Drawing, shorten, text_width

SIDE = 400  # pixels
LABEL_FONT = 10.5  # pixels
MAX_NAMED_CLASSES = 40  # of more, the names do not fit
MAX_LABEL = 16  # characters of a name on the map


def draw_maps(maps: dict[str, Any], what: str = "object") -> list[dict[str, Any]]:
    """Return the ``title`` and the figures ``objects`` and ``domains`` of each state (such as before and after).

    `what` says what the objects are. Of one domain alone there is no figure (None).
    """
    drawn = []
    for state in maps.get("states", []):
        points = np.array(state["places"])
        if len(points):
            marks = {key: (np.array(state[key]), maps["names"][key]) for key in ("objects", "domains")}
            drawn.append(
                {
                    "title": state["title"],
                    "n": len(points),
                    "objects": _draw_objects(points, *marks["objects"], marks["domains"][0], what),
                    "domains": _draw_domains(points, *marks["domains"]) if len(marks["domains"][1]) > 1 else None,
                }
            )
    return drawn


def _start(points: np.ndarray, title: str) -> tuple[Drawing, np.ndarray]:
    """Return a drawing with a title, and the pixels of `points` on it, (N, 2)."""
    drawing = Drawing(f"map of features, coloured {title}", SIDE, SIDE)
    drawing.text(0, 9, title, size=13)
    x, y = Axis.around(points[:, 0], 0, SIDE), Axis.around(points[:, 1], SIDE, 20)
    return drawing, np.array([(x(a), y(b)) for a, b in points.tolist()])


def _marker(domain: int) -> str:
    return tuple(MARKERS)[domain % len(MARKERS)]


def _draw_domains(points: np.ndarray, which: np.ndarray, names: list[str]) -> Markup:
    drawing, places = _start(points, "by domain")
    entries = []
    for k in np.unique(which[which >= 0]).tolist():
        here = places[which == k].tolist()
        drawing.markers(here, _marker(k), 2.2, fill=COLOURS[k % len(COLOURS)], fill_opacity=0.8)
        label = f"{shorten(names[k].replace('_', ' '), MAX_LABEL)} ({len(here)})"
        entries.append((_marker(k), COLOURS[k % len(COLOURS)], label))
    drawing.height = drawing.legend(entries, 0, SIDE + 4, SIDE)
    return drawing.svg


def _draw_objects(points: np.ndarray, which: np.ndarray, names: list[str], domain: np.ndarray, what: str) -> Markup:
    drawing, places = _start(points, f"by {what}")
    colours = [f"rgb({','.join(f'{255 * c:.0f}' for c in colour)})" for colour in class_colours(len(names))]
    for k, of_domain in sorted(set(zip(which.tolist(), domain.tolist(), strict=True))):
        if k >= 0 and of_domain >= 0:
            here = places[(which == k) & (domain == of_domain)].tolist()
            drawing.markers(here, _marker(of_domain), 2.2, fill=colours[k], fill_opacity=0.8)
    present = np.unique(which[which >= 0])
    if 0 < len(present) <= MAX_NAMED_CLASSES:
        middle = np.stack([np.median(places[which == k], axis=0) for k in present])
        labels = [shorten(names[k].replace("_", " "), MAX_LABEL) for k in present]
        sizes = np.array([[text_width(text, LABEL_FONT) + 2, LABEL_FONT + 3] for text in labels])
        for text, (x, y) in zip(labels, separate_labels(middle * (1, -1), sizes).tolist(), strict=True):
            drawing.text(x, -y, text, "middle", LABEL_FONT, class_="named")
    return drawing.svg
