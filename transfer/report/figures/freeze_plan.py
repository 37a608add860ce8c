"""The freeze plan: which stages of the network were trained in each phase, and at which rate."""

from collections.abc import Container
from typing import Any


def stage_rows(policy: dict[str, Any], lr: float, solved: Container[str] = ()) -> list[dict[str, Any]]:
    """Return a row per stage, the heads first and the stem last; empty if the result names no phases.

    `policy` is that of result.json, `lr` the heads' learning rate, of which rates of stages are fractions; `solved` are
    the names of the phases whose heads were solved by L-BFGS.

    Returns
    -------
    list of dict
        ``name``, ``parameters``, ``width`` (of a bar, in [0, 1]: the root of the parameters, relative to the largest)
        and ``cells``, one per phase: ``kind`` (``frozen``, ``norm``, ``trained``, ``statistics``) and ``text``.
    """
    phases = policy.get("phases") or []
    if not phases:
        return []
    rows = []
    for i, stage in enumerate(phases[0]["stages"]):
        cells = [_cell(phase["stages"][i], lr) for phase in phases]
        rows.append({"name": stage["name"], "parameters": stage["parameters"], "cells": cells})
    rates = ["solved" if p["name"] in solved else f"rate {lr * p['heads_rate']:.3g}" for p in phases]
    heads = [{"kind": "trained", "text": rate} for rate in rates]
    rows.append({"name": "heads", "parameters": policy.get("heads_parameters", 0), "cells": heads})
    most = max(row["parameters"] for row in rows) or 1
    return [row | {"width": (row["parameters"] / most) ** 0.5} for row in reversed(rows)]


def _cell(stage: dict[str, Any], lr: float) -> dict[str, str]:
    if stage["train"] == "none":
        if stage["statistics"] == "learning":
            return {"kind": "statistics", "text": "BatchNorm statistics updated"}
        return {"kind": "frozen", "text": "frozen"}
    norms = "norms, " if stage["train"] == "norm" else ""
    statistics = ", statistics updated" if stage["statistics"] == "learning" else ""
    return {"kind": "norm" if norms else "trained", "text": f"{norms}rate {lr * stage['rate']:.3g}{statistics}"}
