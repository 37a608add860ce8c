"""Console text of `transfer pick`: the images to label next, or what strategies would have reached."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from transfer.report.console.tables import note_paragraph, text_table

if TYPE_CHECKING:
    from transfer.curation.pick import PickResult

SHOWN_PICKS = 30  # rows; the file has all


def picks_text(result: "PickResult") -> str:
    """Return what `transfer pick` prints: a row for each image, and how many images have labels."""
    shown = result.images[:SHOWN_PICKS]
    names = [_shorten(each.path) for each in shown]
    columns = {
        "image": names,
        "domain": [each.domain for each in shown],
        "suggested": [f"{each.suggested} {each.probability:.2f}" if each.suggested else "" for each in shown],
        "score": [f"{each.score:.4g}" for each in shown],
        "why": [each.reason for each in shown],
    }
    used = {name: column for name, column in columns.items() if any(column)}
    parts = [text_table([*used], [*zip(*used.values(), strict=True)], ["domain", "suggested", "why"])]
    if len(result.images) > len(shown):
        parts[0] += f"\n… {len(result.images) - len(shown)} more"
    waiting = f", {result.waiting:,} picked before" if result.waiting else ""
    parts.append(
        f"{len(result.images)} of {result.unlabelled:,} images without a label{waiting}, by {result.strategy}; "
        f"{result.labelled:,} have labels, of {len(result.classes)} classes"
    )
    return "\n\n".join([*parts, *note_paragraph(result.notes)])


def _shorten(path: str) -> str:
    """Return the last two parts of a path."""
    return "/".join(Path(path).parts[-2:])


def simulation_text(result: dict[str, Any]) -> str:
    """Return what `transfer pick --simulate` prints: test accuracy by number of labels, and the labels needed."""
    curves = result["curves"]
    head = ["labels", "a class", *(f"{name}{more}" for name in curves for more in ("", " + unlabelled", " seen"))]
    rows = [
        [str(count), f"{count / result['classes']:.1f}"]
        + [f"{curve[key][i]:.3f}" for curve in curves.values() for key in ("accuracy", "propagated", "seen")]
        for i, count in enumerate(result["labels"])
    ]
    parts = [text_table(head, rows)]
    last = result["labels"][-1]
    for name, needed in result["needed"].items():
        fewer = " or fewer" if needed == result["labels"][0] else ""
        count = f"{needed:.0f} labels{fewer}" if needed else f"more than {last} labels"
        share = f", {100 * needed / last:.0f} % of {last}" if needed else ""
        parts.append(f"{name} with unlabelled images reaches {result['goal']:.3f} with {count}{share}")
    seeds = len(result["config"]["simulation"]["seeds"])
    parts.append(
        f"test accuracy of a probe on the labels, and with labels propagated to the other images; seen: share of the "
        f"classes with a label; means of {seeds} seeds; the goal is the accuracy of {last} random picks"
    )
    return "\n\n".join([parts[0], "\n".join(parts[1:])])
