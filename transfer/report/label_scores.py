"""Scores of heads with several labels an image: as console tables, and as rows of the page."""

from typing import Any

from transfer.heads.multilabel.head import MultilabelHead
from transfer.runs.seeds import score_text

MAX_LABEL_ROWS = 20  # labels listed at once; of more, the worst and the best
LABEL_SCORES = MultilabelHead.score_labels


def label_rows(metrics: dict[str, Any], most: int = MAX_LABEL_ROWS) -> tuple[list[dict[str, Any]], int]:
    """Return a row for each label that an image shows, the lowest average precision first, and how many are left out.

    A row has ``name``, ``ap``, ``f1``, ``precision``, ``recall``, ``threshold`` and ``n``, None where undefined. Of
    more than `most`, three quarters are the worst and the others the best.
    """
    keys = ("ap", "f1", "precision", "recall", "threshold")
    rows: list[dict[str, Any]] = [
        {"name": name} | {key: scores.get(key) for key in keys} | {"n": round(scores.get("n", 0))}
        for name, scores in metrics.get("per_label", {}).items()
        if scores.get("n") and scores.get("ap") is not None
    ]
    rows.sort(key=lambda row: (row["ap"], -row["n"]))
    if len(rows) <= most:
        return rows, 0
    worst = 3 * most // 4
    return [*rows[:worst], *rows[worst - most :]], len(rows) - most


def list_label_tables(result: dict[str, Any]) -> list[tuple[list[str], list[list[str]]]]:
    """Return the header and the rows of each table on heads with several labels an image: one on all, one on each."""
    heads = {name: report for name, report in result.get("test", {}).items() if "map" in report}
    if not heads:
        return []
    rows = [
        [name, *(score_text(result, name, score) for score in LABEL_SCORES), str(round(report["n"]))]
        for name, report in heads.items()
    ]
    tables = [(["test", "mAP", *list(LABEL_SCORES.values())[1:], "n"], rows)]
    for name, report in heads.items():
        shown, more = label_rows(report)
        cells = [
            [row["name"], *(_number(row[key]) for key in ("ap", "f1", "threshold")), str(row["n"])] for row in shown
        ]
        cells += [[f"({more} between them)", "", "", "", ""]] if more else []
        if cells:
            tables.append(([name, "AP", "F1", "threshold", "n"], cells))
    return tables


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
