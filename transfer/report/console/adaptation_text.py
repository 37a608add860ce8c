"""What `transfer adapt` prints."""

from typing import Any

from transfer.config.adapt import format_shift
from transfer.report.console.run_text import policy_text
from transfer.report.console.tables import explain_intervals, note_paragraph, paired_test_text, text_table
from transfer.runs.seeds import score_text

UNMEASURED = "no target labels: accuracy is not measured"


def adaptation_text(result: dict[str, Any]) -> str:
    """Return what `transfer adapt` prints."""
    rows = [
        [name, *(score_text(result, "object", score, part) for score in ("accuracy", "macro_f1", "calibration_error"))]
        for name, part in (("source only", "source_only"), ("adapted", "target"))
    ]
    chosen, shift = result["selection"], result["config"]["shift"]
    names = chosen["chosen"] if isinstance(chosen["chosen"], list) else [chosen["chosen"]]
    selection = f"chosen without target labels (--rule {chosen['rule']}): method {', '.join(dict.fromkeys(names))}"
    if chosen["oracle_accuracy"] is not None:
        selection += f"; best candidate by target labels (oracle, unknown in practice): {chosen['oracle_accuracy']:.3f}"
    images, domains = result["images"], f"{' -> '.join(format_shift(shift))} ({shift['protocol']})"
    target = f"{images['target']} unlabelled and {images['target_labelled']} labelled target images"
    parts = [
        f"{domains}: {images['source']} labelled source images, {target}, {images['test']} test images",
        explain_intervals(text_table(["target", "accuracy", "macro-F1", "calibration error"], rows))
        if result["target"]["object"].get("n")
        else UNMEASURED,
        *_changes(result),
        selection,
        "\n  ".join(["shift, estimated without target labels:", *shift_lines(result)]),
        policy_text(result),
    ]
    return "\n\n".join([*parts, *note_paragraph(result.get("notes", []))])


def _changes(result: dict[str, Any], most: int = 3) -> list[str]:
    """Return the difference in accuracy, and the objects with the largest gains and losses."""
    if not result["paired"]:
        return []
    overall = f"adapted - source only: {paired_test_text(result['paired']['object'])}"
    changes = list(result["per_class_change"].items())
    gained = [item for item in changes[:most] if item[1]["change"] > 0]
    lost = [item for item in changes[-most:] if item[1]["change"] < 0]
    rows = [
        [name, f"{c['source_only']:.3f}", f"{c['adapted']:.3f}", f"{c['change']:+.3f}", str(c["n"])]
        for name, c in gained + lost
    ]
    head = ["largest gains and losses", "source only", "adapted", "change", "n"]
    return [overall, *([text_table(head, rows)] if rows else [])]


def shift_lines(result: dict[str, Any]) -> list[str]:
    """Return what is estimated of the domain shift, for the console and the page: a line for each estimate.

    Beside an estimate stands what the target's labels say, where they are known.
    """
    lines, shift, labels = [], result["shift"], result.get("shift_by_labels", {})
    before, after = (shift["a_distance"].get(when) for when in ("before", "after"))
    if before is not None:
        change = "" if after is None else f", {after:.2f} after"
        scale = "0: indistinguishable, 2: perfectly separable; it says nothing about classes"
        lines.append(f"proxy A-distance of the domains {before:.2f} before{change} ({scale})")
    verdict = "a strong label shift" if shift["strong"] else "no more than errors of the estimate explain"
    if not shift.get("reliable", True):
        verdict = "not believed, since the source classifier knows too little about the target"
    true = f" (by its labels {labels['total_variation']:.2f})" if "total_variation" in labels else ""
    estimate = shift["total_variation"]["em"]
    lines.append(f"class proportions differ by about {estimate:.2f}{true}, {verdict}")
    if shift.get("estimated_accuracy") is not None:
        lines.append(f"estimated accuracy of a standardised source classifier: {shift['estimated_accuracy']:.0%}")
    if shift.get("absent"):
        lines.append(f"probably absent from the target: {', '.join(shift['absent'])}")
    if shift.get("open_set"):
        share = labels.get("new_objects")
        true = f"{share:.0%} of its images do" if share else "none do"
        by_labels = "" if share is None else f" (by its labels {true})"
        lines.append(f"images of the target may show objects that the source lacks{by_labels}")
    return lines
