"""Adaptation grid: every method under every policy on every pair of domains; one result, one table."""

import itertools
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import nan
from statistics import fmean
from typing import Any

from transfer.adaptation.adapt import adapt, complete_config, read_domains
from transfer.config.adapt import AdaptConfig, ShiftConfig
from transfer.config.checked import Config
from transfer.config.lists import CommaNames
from transfer.config.serialise import to_dict
from transfer.feature_cache import TrunkCache
from transfer.report.console.tables import text_table
from transfer.runs.folder import RunFolder
from transfer.runs.seeds import score_text
from transfer.runtime.device import get_versions

log = logging.getLogger(f"transfer.{__name__}")  # printed as the command's own log lines are


@dataclass(frozen=True)
class GridConfig(Config):
    """Adapt by every method under every policy."""

    adapt: AdaptConfig = field(default_factory=AdaptConfig)
    methods: CommaNames = ("source_only", "coral", "dann", "growing", "auto")
    """Adaptation methods, as for --method."""
    policies: CommaNames = ("linear_probe",)
    """Freeze policies, as for --policy."""


def run_grid(config: GridConfig, pairs: Sequence[tuple[tuple[str, ...], str]] | None = None) -> dict[str, Any]:
    """Adapt by each method under each policy on each pair of domains.

    Parameters
    ----------
    config : GridConfig
    pairs : sequence of (tuple of str, str), optional
        Source domains and target of each pair (default: those of `config`; an open side means every domain).

    Returns
    -------
    dict
        ``runs``: the result of each run by policy, method and ``"source -> target"``.

    Raises
    ------
    TransferError
        Bad input; a run folder that cannot be used.
    """
    started, base = time.perf_counter(), config.adapt
    out, shift = base.run.out, base.shift
    overwrite, resume = base.run.overwrite, base.run.resume
    folder = RunFolder(out, to_dict(config), overwrite=overwrite, resume=resume) if out else None
    if folder and folder.finished_result:
        return folder.finished_result
    cache = TrunkCache(base.cache)
    images = read_domains(shift, cache)
    if pairs is None:
        pairs = (
            [(shift.source, shift.target)] if shift.source and shift.target else _all_pairs(shift, images.table.domains)
        )
    runs: dict[str, dict[str, dict[str, Any]]] = {}
    for policy, method, (sources, target) in itertools.product(config.policies, config.methods, pairs):
        pair = f"{','.join(sources)} -> {target}"
        log.info("%s, %s: %s", policy, method, pair)
        name = f"{policy}_{method}_{','.join(sources)}_{target}".replace(":", "-")
        run_config = replace(
            base,
            shift=replace(shift, source=sources, target=target),
            method=replace(base.method, method=(method,), policy=policy),
            run=replace(base.run, out=out / name if out else None),
        )
        run_config = complete_config(run_config)
        result = adapt(run_config, images=images, cache=TrunkCache(run_config.cache, cache.disk_cache)).result
        runs.setdefault(policy, {}).setdefault(method, {})[pair] = result
    result = {
        "command": "cross",
        "config": to_dict(config),
        "versions": get_versions(),
        "seconds": {"total": round(time.perf_counter() - started, 3)},
        "runs": runs,
    }
    if folder:
        folder.write_result(result)
    return result


def _all_pairs(shift: ShiftConfig, domains: Sequence[str]) -> list[tuple[tuple[str, ...], str]]:
    """Return every pair of different domains; a named source or target restricts its side."""
    sources, targets = shift.source or domains, (shift.target,) if shift.target else domains
    return [((source,), target) for source in sources for target in targets if source != target]


def grid_text(result: dict[str, Any]) -> str:
    """Return the table of a grid: a row per policy and method, a column per pair of domains."""
    rows = []
    pairs: list[str] = []
    for policy, methods in result["runs"].items():
        for method, runs in methods.items():
            pairs = list(runs)
            mean = fmean(run["target"]["object"].get("accuracy", nan) for run in runs.values())
            oracle = [run["selection"]["oracle_accuracy"] for run in runs.values()]
            rows.append(
                [
                    f"{policy} {method}",
                    *(score_text(run, "object", part="target").partition(" [")[0] for run in runs.values()),
                    f"{mean:.3f}",
                    "-" if None in oracle else f"{fmean(oracle):.3f}",
                    f"{sum(run['seconds']['total'] for run in runs.values()):.0f}",
                ]
            )
    return text_table(["object accuracy on the target", *pairs, "mean", "oracle", "seconds"], rows)
