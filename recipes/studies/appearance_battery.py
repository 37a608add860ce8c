"""Does `auto` ever do worse than source_only? Both on every pair of domains that differ in appearance."""

import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from studies.appearance_shifts import AppearancePair, images_of_pair, list_pairs, read_looks, write_looks
from transfer.adaptation.adapt import adapt, complete_config
from transfer.config.adapt import AdaptConfig, ShiftConfig
from transfer.config.lists import CommaNames
from transfer.feature_cache import TrunkCache
from transfer.report.console.tables import text_table

log = logging.getLogger(f"transfer.{__name__}")  # printed as the command's own log lines are

LOSS = 0.5  # percentage points below source_only from which a pair counts as hurt


@dataclass(frozen=True)
class BatteryConfig:
    """Adapt by `auto` to every change of appearance."""

    adapt: AdaptConfig = field(default_factory=AdaptConfig)
    sets: CommaNames = ("office31", "flowers12", "digits")
    """Data sets whose photographs are transformed."""
    part: Literal["all", "development", "held_out"] = "all"
    """Pairs on which the rules of auto were set, or the others."""
    images: Path | None = None
    """Folder for the transformed images (default: transfer-appearance in the folder of temporary files)."""


def run_battery(config: BatteryConfig) -> list[dict[str, Any]]:
    """Adapt by `auto` on every pair, and return a row for each.

    Returns
    -------
    list of dict
        ``pair``, ``development``, the accuracies ``source_only`` and ``auto`` and their difference ``gain`` in
        percentage points, what auto ``did``, and the ``shares``: total variation of the class shares as estimated, its
        error, and the true one.
    """
    folder = config.images or Path(tempfile.gettempdir(), "transfer-appearance")
    base, rows = config.adapt, []
    cache = TrunkCache(base.cache)
    pairs = [pair for pair in list_pairs(config.sets) if config.part in ("all", _part_of(pair))]
    for data in dict.fromkeys(pair.data for pair in pairs):
        images = read_looks(write_looks(data, base.shift.data_root, folder), cache.disk_cache)
        for pair in (pair for pair in pairs if pair.data == data):
            source, target = pair.domains
            log.info("%s", pair.name)
            shift = ShiftConfig(data, (source,), target)
            run_config = complete_config(replace(base, shift=shift, run=replace(base.run, out=None)))
            rows.append(_row(pair, adapt(run_config, images=images_of_pair(images, pair), cache=cache).result))
            log.info(
                "{pair}: source_only {source_only:.1f}, auto {auto:.1f}, shares {shares}: {did}".format_map(rows[-1])
            )
    return rows


def _part_of(pair: AppearancePair) -> str:
    return "development" if pair.development else "held_out"


def _row(pair: AppearancePair, result: dict[str, Any]) -> dict[str, Any]:
    before, after = (100 * result[part]["object"]["accuracy"] for part in ("source_only", "target"))
    (note,) = (note for note in result["notes"] if note.startswith("auto: "))
    estimated, true = result["shift"]["total_variation"], result["shift_by_labels"]["total_variation"]
    shares = f"{estimated['em']:.2f} ± {estimated['disagreement']:.2f} ({true:.2f})"
    row = {"pair": pair.name, "development": pair.development, "source_only": before, "auto": after}
    return row | {"gain": after - before, "did": note.rpartition(": ")[2], "shares": shares}


def battery_text(rows: Sequence[dict[str, Any]]) -> str:
    """Return the table of all pairs and a line for each part."""
    cells = []
    for row in rows:
        figures = f"{row['source_only']:.1f}", f"{row['auto']:.1f}", f"{row['gain']:+.1f}"
        cells.append([row["pair"], *figures, row["shares"], row["did"]])
    table = text_table(["pair", "source only", "auto", "gain", "shares: estimate ± error (true)", "auto"], cells)
    return "\n".join([table, "", *_summaries(rows)])


def _summaries(rows: Sequence[dict[str, Any]]) -> list[str]:
    lines = []
    for name, development in (("development", True), ("held out", False)):
        gains = [row["gain"] for row in rows if row["development"] is development]
        if gains:
            hurt = sum(gain < -LOSS for gain in gains)
            counts = f"{hurt} of {len(gains)} pairs more than {LOSS} points below source_only"
            lines.append(f"{name}: mean gain {fmean(gains):+.1f} points, least {min(gains):+.1f}; {counts}")
    return lines
