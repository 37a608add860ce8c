"""What was answered on the test images, row by row."""

from typing import Any

from transfer.data.table import ImageTable
from transfer.evaluation.predictions import Answers, decide


def prediction_rows(table: ImageTable, answers: Answers) -> list[dict[str, Any]]:
    """Return a row per image: path, and for each head the truth, the answer and its probability."""
    rows: list[dict[str, Any]] = [{"path": str(path)} for path in table.paths]
    for name, values in answers.items():
        target = table.targets[name]
        decided = decide(target, values)
        for i, row in enumerate(rows):
            if target.kind == "regression":
                row[name], row[f"{name}_predicted"] = target.values[i], float(values[i])
                continue
            row[name] = target.classes[target.values[i]] if target.values[i] >= 0 else ""
            row[f"{name}_predicted"] = target.classes[decided[i]]
            p = values[i].max() if target.kind == "softmax" else max(values[i], 1 - values[i])
            row[f"{name}_probability"] = round(float(p), 6)
    return rows
