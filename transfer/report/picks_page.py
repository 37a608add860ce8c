"""The contact sheet of picked images: values for the template picks.html."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

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
