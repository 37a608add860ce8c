"""The page of one run: values for the template run.html."""

import json
import math
import re
from typing import Any

import numpy as np

from transfer.config.adapt import format_shift
from transfer.config.checked import from_dict
from transfer.config.serialise import complete_old_config, iter_settings
from transfer.errors import TransferError
from transfer.evaluation.calibration import measure_calibration
from transfer.heads import ClassHeadKind, HeadKind
from transfer.heads.metrics import wilson_interval
from transfer.heads.registry import score_labels
from transfer.report.command_line import RUN_CONFIGS, command_line
from transfer.report.console.adaptation_text import shift_lines
from transfer.report.console.update_text import comparison_rows, list_changed_classes
from transfer.report.figures import confusion, curves, feature_map, freeze_plan, pictures, reliability, risk_coverage
from transfer.report.label_scores import LABEL_SCORES, label_rows
from transfer.report.load import SavedRun

SCORE_NAMES, ERROR_NAMES = {**LABEL_SCORES, **ClassHeadKind.score_labels}, HeadKind.score_labels
MAX_CHANGED_CLASSES = 12  # largest gains, and as many losses
MAX_CLASS_ROWS = 40  # classes listed at once; of more, the worst and the best


def run_page(run: SavedRun) -> dict[str, Any]:
    """Return the values of run.html."""
    result = run.result
    config = config_of(run)
    heads = [_head(run, head) for head in run.metrics_by_head]
    data = run.report_data
    solved = {line["phase"] for line in run.metrics if "solved" in line}
    return {
        "run": run,
        "result": result,
        "title": run_title(run),
        "heads": heads,
        "measured": any(head["scores"] for head in heads),
        "compared": [head for head in heads if head["known"]],
        "calibrated": [head for head in heads if head["reliability"]],
        "labelled": any("map" in metrics for metrics in run.metrics_by_head.values()),
        "scores": SCORE_NAMES,
        "errors": {**score_labels(), **ERROR_NAMES},
        "phases": [phase["name"] for phase in result["policy"].get("phases", [])],
        "stages": freeze_plan.stage_rows(result["policy"], _head_rate(result["config"]), solved),
        "curves": curves.draw_curves(run.metrics, {h: "mAP" for h, m in run.metrics_by_head.items() if "map" in m}),
        "domains": domain_rows(result.get("per_domain", {})) if len(result.get("per_domain", {})) > 1 else {},
        "galleries": [
            (name, pictures.image_cards(run, rows))
            for name, rows in data.get("galleries", {}).items()
            if name != "explained" and rows
        ],
        "explained": pictures.gradcam_cards(run),
        "maps": feature_map.draw_maps(data.get("map", {}), "object" if "object" in run.metrics_by_head else "labels"),
        "gains": _gains(result.get("per_class_change", {})),
        "shift_lines": shift_lines(result) if "shift" in result else [],
        "advice": result.get("advice"),
        "settings": _settings(config) if config else _flatten(result["config"]),
        "command": command_line(config) if config else "",
        "notes": [*result.get("monitor", []), *result.get("notes", [])],
        "update": _update(run.update) if run.update else {},
        "uncertainty": result.get("uncertainty", {}),
        "risks": risk_coverage.draw_risks(result.get("uncertainty", {})),
        "uncalibrated": result["config"].get("learn", {}).get("loss") == "hinge",
    }


def run_title(run: SavedRun) -> str:
    """Return a line that names the data, the backbone and the policy, or the source and target domains."""
    config, result = run.result["config"], run.result
    backbone = result.get("backbone", {}).get("name") or config["backbone"]["backbone"]
    if run.adapted:
        shift = config["shift"]
        return f"{_last_part(shift['data'])}: {' → '.join(format_shift(shift))} · {backbone}"
    return f"{_last_part(config['data']['data'])} · {backbone} · {result['policy']['name']}"


def _last_part(data: str) -> str:
    """Return the name of a data set or of the last folder of its path; the settings have the whole path."""
    return re.split(r"[/\\]", data.rstrip("/\\"))[-1] or data


def config_of(run: SavedRun) -> Any:
    """Return the run's config; None if it was written by a version with other settings."""
    try:
        return from_dict(RUN_CONFIGS[run.result["command"]], complete_old_config(run.result["config"]))
    except (TransferError, TypeError):
        return None


def score_interval(run: SavedRun, head: str, score: str) -> dict[str, Any] | None:
    """Return the ``value`` of a score, and the ``low`` and ``high`` end of its interval or its ``sd`` over seeds."""
    metrics = run.metrics_by_head.get(head, {})
    if score not in metrics:
        return None
    if "sd" in run.result:
        return {"value": metrics[score], "sd": run.result["sd"][run.metrics_key][head][score]}
    low, high = metrics.get("interval", {}).get(score, (None, None))
    return {"value": metrics[score], "low": low, "high": high}


def _head(run: SavedRun, head: str) -> dict[str, Any]:
    metrics = run.metrics_by_head[head]
    per_seed = [result.get(run.metrics_key, {}).get(head, {}) for result in run.seed_results]
    names, matrix = confusion.sum_confusions(per_seed)
    predictions = [row for row in run.labelled_predictions(head) if math.isfinite(row[-1])]
    curve = None
    if predictions:
        correct = np.array([true == called for _, true, called, _ in predictions], dtype=float)
        curve = measure_calibration(np.array([probability for *_, probability in predictions]), correct)
    first, more = class_rows(metrics)
    labels, more_labels = label_rows(metrics, MAX_CLASS_ROWS)
    return {
        "name": head,
        "n": round(metrics.get("n", 0)),
        "scores": {score: score_interval(run, head, score) for score in _score_names(metrics)},
        "calibration": curve.error if curve else None,
        "reliability": reliability.draw_reliability(head, curve) if curve else None,
        "confusion": confusion.draw_confusion(head, names, matrix),
        "confused": confusion.confused_pairs(names, matrix),
        "known": len(names),
        "classes": first,
        "more": more,
        "labels": labels,
        "more_labels": more_labels,
    }


def _score_names(metrics: dict[str, Any]) -> list[str]:
    """Return the keys of the scores to show: known ones in order, then those of other head kinds."""
    known = [score for score in (*SCORE_NAMES, *ERROR_NAMES) if score in metrics]
    shown_elsewhere = ("n", "calibration_error")
    return known + [k for k, v in metrics.items() if isinstance(v, float) and k not in (*known, *shown_elsewhere)]


def _accuracy_row(name: str, accuracy: float, n: float) -> dict[str, Any]:
    """Return ``name``, ``share`` (the accuracy), the ``low`` and ``high`` end of its Wilson interval, and ``n``."""
    low, high = wilson_interval(accuracy, n)
    return {"name": name, "share": accuracy, "low": low, "high": high, "n": round(n)}


def domain_rows(per_domain: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Return for each head a row with the accuracy in each domain."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for domain, by_head in per_domain.items():
        for head, metrics in by_head.items():
            if "accuracy" in metrics and metrics.get("n"):
                rows.setdefault(head, []).append(_accuracy_row(domain, metrics["accuracy"], metrics["n"]))
    return rows


def class_rows(metrics: dict[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return a row with the recall of each class that occurs, the worst first: those to list at once, and the rest."""
    rows = [
        _accuracy_row(name, of_class["recall"], of_class["n"]) | {"precision": of_class.get("precision")}
        for name, of_class in metrics.get("per_class", {}).items()
        if of_class.get("recall") is not None and of_class.get("n")
    ]
    rows.sort(key=lambda row: (row["share"], -row["n"]))
    if len(rows) <= MAX_CLASS_ROWS:
        return rows, []
    worst, best = MAX_CLASS_ROWS // 2, MAX_CLASS_ROWS // 4
    return rows[:worst] + rows[-best:], rows[worst:-best]


def _head_rate(config: dict[str, Any]) -> float:
    return float(config["learn" if "learn" in config else "steps"]["lr"])


def _update(update: dict[str, Any]) -> dict[str, Any]:
    """Return update.json with the number of new images, and rows of the comparison and of the changed classes."""
    new = sum(update["changes"]["images"]["new"].values())
    return update | {"new": new, "rows": comparison_rows(update), "classes": list_changed_classes(update)}


def _gains(changes: dict[str, Any]) -> dict[str, list[tuple[str, dict[str, Any]]]]:
    items = list(changes.items())
    return {
        "gained": [item for item in items if item[1]["change"] > 0][:MAX_CHANGED_CLASSES],
        "lost": [item for item in reversed(items) if item[1]["change"] < 0][:MAX_CHANGED_CLASSES],
    }


def _settings(config: Any) -> list[tuple[str, str, bool]]:
    """Return every setting: its name, its value, and whether it differs from the default."""
    return [
        (name.replace("_", "-"), _value_text(value), value != default) for name, value, default in iter_settings(config)
    ]


def _flatten(config: dict[str, Any]) -> list[tuple[str, str, bool]]:
    rows: list[tuple[str, str, bool]] = []
    for name, value in config.items():
        rows += _flatten(value) if isinstance(value, dict) else [(name.replace("_", "-"), _value_text(value), False)]
    return rows


def _value_text(value: Any) -> str:
    if isinstance(value, tuple | list):
        return ", ".join(map(str, value))
    return value if isinstance(value, str) else json.dumps(value, default=str)
