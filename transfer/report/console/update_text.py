"""What `transfer update` prints: the images, the accuracy before and after, and the classes that changed."""

from typing import Any

from transfer.report.console.run_text import run_text
from transfer.report.console.tables import note_paragraph, paired_test_text, text_table

SHOWN_CLASSES = 10  # with the largest gains, and as many losses

TEST_SETS = {"old_test": "old test images", "new_test": "new test images"}


def update_text(result: dict[str, Any]) -> str:
    """Return the result of :func:`transfer.update` as text."""
    parts = [run_text(result["run"]), *_changes(result["changes"])]
    rows = comparison_rows(result)
    if rows:
        parts.append(text_table(["before and after", "n", "before", "after", "difference"], rows))
    for title, rows in list_changed_classes(result).items():
        parts.append(text_table([title, "n", "before", "after", "change"], rows))
    return "\n\n".join([*parts, *note_paragraph(result["notes"])])


def comparison_rows(result: dict[str, Any]) -> list[list[str]]:
    """Return a row for each head on old and on new test images: name, number, accuracies and the paired test."""
    return [
        [
            f"{head}{_score_of(found)}, {title}",
            str(found["n"]),
            f"{found['before']:.3f}",
            f"{found['after']:.3f}",
            _test(found),
        ]
        for part, title in TEST_SETS.items()
        for head, found in result[part].items()
    ]


def list_changed_classes(result: dict[str, Any]) -> dict[str, list[list[str]]]:
    """Return the rows of :func:`class_rows_changed` of each head where a class changed, by the title of their table."""
    tables = {}
    for head, classes in result["per_class"].items():
        of_labels = any(_score_of(result[part].get(head, {})) for part in TEST_SETS)
        what = "labels whose average precision changed" if of_labels else "classes that changed"
        if rows := class_rows_changed(classes):
            tables[f"{head}: {what}"] = rows
    return tables


def class_rows_changed(classes: dict[str, Any]) -> list[list[str]]:
    """Return a row for each class whose recall changed, largest gain first; of many, those at both ends."""
    changed = sorted(
        ((name, each) for name, each in classes.items() if each["change"]), key=lambda item: -item[1]["change"]
    )
    if len(changed) > 2 * SHOWN_CLASSES:
        changed = [*changed[:SHOWN_CLASSES], *changed[-SHOWN_CLASSES:]]
    return [
        [name, str(each["n"]), f"{each['before']:.3f}", f"{each['after']:.3f}", f"{each['change']:+.3f}"]
        for name, each in changed
    ]


def _score_of(found: dict[str, Any]) -> str:
    """Return which score is compared if it is not accuracy."""
    return " (mAP)" if found.get("score") == "map" else ""


def _test(found: dict[str, Any]) -> str:
    return paired_test_text(found["paired"])


def _changes(changes: dict[str, Any]) -> list[str]:
    new = changes["images"]["new"]
    counts = ", ".join(f"{name} {count:,}" for name, count in new.items())
    lines = [f"{changes['images']['old']:,} old images, {sum(new.values()):,} new ones ({counts})"]
    for kind, names in (("classes", changes["new_classes"]), ("domains", changes["new_domains"])):
        lines += [f"new {kind}: {', '.join(names)}"] if names else []
    for column, names in changes.get("new_labels", {}).items():  # runs of earlier versions have none
        lines.append(f"new labels of {column}: {', '.join(names)}")
    return ["\n".join(lines)]
