"""What learned and what stayed: the stages of the network under each phase."""

from collections.abc import Container
from typing import Any


def stages(policy: dict[str, Any], lr: float, solved: Container[str] = ()) -> list[dict[str, Any]]:
    """Return the rows of a drawing of the network, the heads first and the stem last; none of an older result.

    Parameters
    ----------
    policy : dict
        As in result.json.
    lr : float
        The heads' learning rate, of which the others are fractions.
    solved : container of str
        Names of the phases whose heads were solved.

    Returns
    -------
    list of dict
        ``name``, ``parameters``, ``width`` (of a bar, in [0, 1]: its root over the largest's) and ``cells``, one per
        phase: ``kind`` (``frozen``, ``norm``, ``trained``, ``statistics``) and what to ``say``.
    """
    phases = policy.get("phases") or []
    if not phases:
        return []
    rows = []
    for i, stage in enumerate(phases[0]["stages"]):
        cells = [_cell(phase["stages"][i], lr) for phase in phases]
        rows.append({"name": stage["name"], "parameters": stage["parameters"], "cells": cells})
    rates = ["solved" if p["name"] in solved else f"rate {lr * p['heads_rate']:.3g}" for p in phases]
    heads = [{"kind": "trained", "say": say} for say in rates]
    rows.append({"name": "heads", "parameters": policy.get("heads_parameters", 0), "cells": heads})
    most = max(row["parameters"] for row in rows) or 1
    return [row | {"width": (row["parameters"] / most) ** 0.5} for row in reversed(rows)]


def _cell(stage: dict[str, Any], lr: float) -> dict[str, str]:
    if stage["train"] == "none":
        moving = stage["statistics"] == "learning"
        return {"kind": "statistics", "say": "statistics learn"} if moving else {"kind": "frozen", "say": "frozen"}
    what = "norms, " if stage["train"] == "norm" else ""
    too = ", statistics learn" if stage["statistics"] == "learning" else ""
    return {"kind": "norm" if what else "trained", "say": f"{what}rate {lr * stage['rate']:.3g}{too}"}
