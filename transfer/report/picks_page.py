"""The contact sheet of picked images, and the curves of simulated picks: values for their templates."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transfer.report.figures.label_curves import draw_label_curves
from transfer.report.figures.pictures import round_percent
from transfer.report.figures.svg import shorten
from transfer.report.figures.thumbnails import Thumbnails
from transfer.runtime.escape import escape_unprintable

if TYPE_CHECKING:
    from transfer.curation.pick import PickResult

PICTURE_SIDE_OF_PICKS = 160  # pixels
MAX_NAME_OF_PICKS = 120  # characters of a class or file


def picks_page(result: "PickResult") -> dict[str, Any]:
    """Return the values of picks.html."""
    paths = [each.path for each in result.images]
    pictures = Thumbnails(paths, result.levels).draw(range(len(paths)), PICTURE_SIDE_OF_PICKS)
    cards = [
        {
            "number": i + 1,
            "picture": pictures.get(i, ""),
            "path": escape_unprintable(each.path),
            "name": shorten(Path(each.path).name, MAX_NAME_OF_PICKS),
            "domain": shorten(each.domain, MAX_NAME_OF_PICKS),
            "suggested": shorten(each.suggested, MAX_NAME_OF_PICKS),
            "percent": None if each.probability is None else round_percent(each.probability),
            "reason": escape_unprintable(each.reason),
        }
        for i, each in enumerate(result.images)
    ]
    return {
        "title": f"{len(cards)} images to label next",
        "result": result,
        "file": escape_unprintable(str(result.out)) if result.out else "",
        "cards": cards,
        "hidden": len(cards) - len(pictures),
        "notes": [escape_unprintable(note) for note in result.notes],
    }


SIMULATED_SCORES = {
    "accuracy": "accuracy with the labels alone",
    "propagated": "accuracy with unlabelled images",
    "seen": "share of the classes with a label",
}


def simulation_page(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of simulation.html, from what :func:`transfer.curation.simulation.simulate` returns."""
    labels, curves, goal = result["labels"], result["curves"], result["goal"]
    data = result["config"]["images"]["data"]
    names = {name: shorten(name, MAX_NAME_OF_PICKS) for name in curves}
    needed = [
        {
            "name": names[name],
            "labels": f"> {labels[-1]:,}" if count is None else f"{'≤ ' * (count == labels[0])}{count:,.0f}",
            "share": None if count is None else f"{100 * count / labels[-1]:.0f}",
        }
        for name, count in result["needed"].items()
    ]
    return {
        "title": f"{shorten(Path(data).name or data, MAX_NAME_OF_PICKS)}: how many labels are enough?",
        "data": escape_unprintable(data),
        "backbone": result["config"]["backbone"]["backbone"],
        "seeds": len(result["config"]["simulation"]["seeds"]),
        "needed": needed,
        "goal": f"{goal:.3f}" if goal else "",
        "most": f"{labels[-1]:,}",
        "figures": [
            draw_label_curves(
                title,
                labels,
                {names[name]: curve[key] for name, curve in curves.items()},
                None if key == "seen" else goal,
            )
            for key, title in SIMULATED_SCORES.items()
        ],
        "names": names.values(),
        "rows": [
            [f"{count:,}", f"{count / result['classes']:.1f}"]
            + [f"{curve[key][i]:.3f}" for curve in curves.values() for key in SIMULATED_SCORES]
            for i, count in enumerate(labels)
        ],
    }
