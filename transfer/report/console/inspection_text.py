"""Console text of `transfer inspect`: the findings as a table."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transfer.report.console.tables import text_table

MAX_EXAMPLE = 60  # characters of the file named in a row


def inspection_text(result: Mapping[str, Any]) -> str:
    """Return the counts, and for each finding the number of images and the worst one."""
    overview, paths = result["overview"], result["images"]["path"]
    classes = sum(name != "" for name in overview["counts"])
    head = f"{overview['images']:,} images, {overview['labelled']:,} labelled, {classes:,} class{'es' * (classes != 1)}"
    if overview["left_out"]:
        head += f"; {len(overview['left_out']):,} files left out"
    rows = []
    for finding in result["findings"]:
        worst = finding["items"][0]
        place = "/".join(Path(paths[worst["rows"][0]]).parts[-2:])[-MAX_EXAMPLE:]
        rows.append([finding["title"], f"{finding['count']:,}", f"{place} ({worst['note']})"])
    return "\n\n".join(
        [head, text_table(["finding", "images", "first"], rows, ["first"]) if rows else "nothing odd was found"]
    )
