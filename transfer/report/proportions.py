"""Accuracies with their intervals, of domains and of classes."""

from typing import Any

from transfer.heads.metrics import wilson_interval

SHOWN = 40  # classes that are listed at once; of more, the worst and the best


def row(name: str, share: float, n: float) -> dict[str, Any]:
    """Return a row of a table: ``name``, ``share``, its ``low`` and ``high`` end, ``n``."""
    low, high = wilson_interval(share, n)
    return {"name": name, "share": share, "low": low, "high": high, "n": round(n)}


def domains(per_domain: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Return for each head a row for each domain."""
    found: dict[str, list[dict[str, Any]]] = {}
    for domain, reports in per_domain.items():
        for head, report in reports.items():
            if "accuracy" in report and report.get("n"):
                found.setdefault(head, []).append(row(domain, report["accuracy"], report["n"]))
    return found


def classes(report: dict[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return a row for each class that occurs, the worst first: those to show at once, and the others."""
    rows = [
        row(name, some["recall"], some["n"]) | {"precision": some.get("precision")}
        for name, some in report.get("per_class", {}).items()
        if some.get("recall") is not None and some.get("n")
    ]
    rows.sort(key=lambda one: (one["share"], -one["n"]))
    if len(rows) <= SHOWN:
        return rows, []
    return rows[: SHOWN // 2] + rows[-SHOWN // 4 :], rows[SHOWN // 2 : -SHOWN // 4]
