"""What the page of one run holds, as plain values for its template."""

import json
import math
from typing import Any

import numpy as np

from transfer.config.serialise import from_dict
from transfer.errors import TransferError
from transfer.evaluation.calibration import calibration
from transfer.report import proportions
from transfer.report.command_line import KINDS, command, settings
from transfer.report.figures import confusion, curves, feature_map, freeze_plan, pictures, reliability
from transfer.report.load import Saved

SCORES = {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "macro_f1": "macro-F1"}
ERRORS = {"mae": "mean absolute error", "rmse": "root mean squared error", "r2": "R²"}
CHANGES = 12  # classes that gained, and as many that lost


def contents(run: Saved) -> dict[str, Any]:
    """Return the values of run.html."""
    result = run.result
    config = config_of(run)
    drawn = [_head(run, head, i) for i, head in enumerate(run.reports)]
    kept = run.exhibits
    solved = {line["phase"] for line in run.metrics if "solved" in line}
    return {
        "run": run,
        "result": result,
        "title": title(run),
        "heads": drawn,
        "scores": SCORES,
        "errors": ERRORS,
        "phases": [phase["name"] for phase in result["policy"].get("phases", [])],
        "stages": freeze_plan.stages(result["policy"], _rate(result["config"]), solved),
        "curves": curves.curves(run.metrics),
        "domains": proportions.domains(result.get("per_domain", {})) if len(result.get("per_domain", {})) > 1 else {},
        "galleries": [
            (name, pictures.cards(run, rows))
            for name, rows in kept.get("galleries", {}).items()
            if name != "explained" and rows
        ],
        "explained": pictures.explained(run),
        "maps": feature_map.drawings(kept.get("map", {})),
        "gains": _gains(result.get("per_class_change", {})),
        "advice": result.get("advice"),
        "settings": _settings(config) if config else _flat(result["config"]),
        "command": command(config) if config else "",
        "says": [*result.get("monitor", []), *result.get("notes", [])],
        "unsure": result["config"].get("learn", {}).get("loss") == "hinge",
    }


def title(run: Saved) -> str:
    """Return what was learned with what, in a line."""
    config, result = run.result["config"], run.result
    backbone = result.get("backbone", {}).get("name") or config["backbone"]["backbone"]
    if run.adapted:
        shift = config["shift"]
        return f"{shift['data']}: {', '.join(shift['source'])} → {shift['target']} · {backbone}"
    return f"{config['data']['data']} · {backbone} · {result['policy']['name']}"


def config_of(run: Saved) -> Any:
    """Return the run's config; None where it was written by a version that had other settings."""
    try:
        return from_dict(KINDS[run.result["command"]], run.result["config"])
    except (TransferError, TypeError):
        return None


def figure(run: Saved, head: str, score: str) -> dict[str, Any] | None:
    """Return one score of one head: its ``value``, and its ``low`` and ``high`` end (or ``sd`` over seeds)."""
    report = run.reports.get(head, {})
    if score not in report:
        return None
    if "sd" in run.result:
        return {"value": report[score], "sd": run.result["sd"][run.part][head][score]}
    low, high = report.get("interval", {}).get(score, (None, None))
    return {"value": report[score], "low": low, "high": high}


def _head(run: Saved, head: str, number: int) -> dict[str, Any]:
    report = run.reports[head]
    names, matrix = confusion.counts([one.get(run.part, {}).get(head, {}) for one in run.each])
    answers = [answer for answer in run.answers(head) if math.isfinite(answer[-1])]
    found = None
    if answers:
        sure = np.array([p for _, _, _, p in answers])
        found = calibration(sure, np.array([true == said for _, true, said, _ in answers], dtype=float))
    first, more = proportions.classes(report)
    return {
        "name": head,
        "n": round(report.get("n", 0)),
        "scores": {score: figure(run, head, score) for score in (*SCORES, *ERRORS) if score in report},
        "calibration": found.error if found else None,
        "reliability": reliability.drawing(head, number, found) if found else None,
        "confusion": confusion.drawing(head, number, names, matrix),
        "confused": confusion.pairs(names, matrix),
        "known": len(names),
        "classes": first,
        "more": more,
    }


def _rate(config: dict[str, Any]) -> float:
    return float(config["learn" if "learn" in config else "steps"]["lr"])


def _gains(changes: dict[str, Any]) -> dict[str, list[tuple[str, dict[str, Any]]]]:
    items = list(changes.items())
    return {
        "gained": [item for item in items if item[1]["change"] > 0][:CHANGES],
        "lost": [item for item in reversed(items) if item[1]["change"] < 0][:CHANGES],
    }


def _settings(config: Any) -> list[tuple[str, str, bool]]:
    """Return every setting: name, value, and whether it is another than the default."""
    return [(name.replace("_", "-"), _said(value), value != usual) for name, value, usual in settings(config)]


def _flat(config: dict[str, Any]) -> list[tuple[str, str, bool]]:
    found: list[tuple[str, str, bool]] = []
    for name, value in config.items():
        found += _flat(value) if isinstance(value, dict) else [(name.replace("_", "-"), _said(value), False)]
    return found


def _said(value: Any) -> str:
    if isinstance(value, tuple | list):
        return ", ".join(map(str, value))
    return value if isinstance(value, str) else json.dumps(value, default=str)
