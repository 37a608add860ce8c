"""What `transfer cache` prints."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from transfer.report.console.tables import text_table


def cache_text(entries: Sequence[Any]) -> str:
    """Return what `transfer cache` prints: a row per :class:`transfer.disk_cache.CacheEntry`."""
    rows = []
    for entry in entries:
        about = entry.about
        view = f", view {about['view']['number']}" if about.get("view") else ""
        name = f"{about['backbone']} to {about['stage']}{view}" if "backbone" in about else entry.kind
        used = datetime.fromtimestamp(entry.last_used).strftime("%Y-%m-%d %H:%M")
        rows.append([name, about.get("precision", ""), f"{entry.rows:,}", f"{entry.bytes / 1e6:,.1f}", used])
    total = f"{sum(entry.bytes for entry in entries) / 1e6:,.1f}"
    return text_table(["cached", "precision", "images", "MB", "last used"], [*rows, ["total", "", "", total, ""]])
