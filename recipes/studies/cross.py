"""Methods crossed with policies and pairs of domains: one result, one table."""

import itertools
import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from transfer.adaptation.adapt import adapt, prepared, read
from transfer.config.adapt import CrossConfig, ShiftConfig
from transfer.config.serialise import to_dict
from transfer.feature_cache import TrunkCache
from transfer.runs.folder import RunFolder
from transfer.runtime.device import get_versions

log = logging.getLogger(__name__)


def cross(config: CrossConfig, pairs: Sequence[tuple[tuple[str, ...], str]] | None = None) -> dict[str, Any]:
    """Adapt by each method under each policy on each pair; return all results.

    Parameters
    ----------
    config : CrossConfig
    pairs : sequence of (tuple of str, str), optional
        Sources and target of each (default: what `config` names; of a side that it leaves open, every domain).

    Returns
    -------
    dict
        ``runs``: by policy, method and ``"source -> target"`` each run's result.

    Raises
    ------
    TransferError
        Bad input; a run folder that cannot be used.
    """
    began, base = time.perf_counter(), config.adapt
    out, shift = base.run.out, base.shift
    overwrite, resume = base.run.overwrite, base.run.resume
    folder = RunFolder(out, to_dict(config), overwrite=overwrite, resume=resume) if out else None
    if folder and folder.finished_result:
        return folder.finished_result
    cache = TrunkCache(base.cache)
    images = read(shift, cache)
    if pairs is None:
        pairs = [(shift.source, shift.target)] if shift.source and shift.target else _open(shift, images.table.domains)
    runs: dict[str, dict[str, dict[str, Any]]] = {}
    for policy, method, (sources, target) in itertools.product(config.policies, config.methods, pairs):
        pair = f"{','.join(sources)} -> {target}"
        log.info("%s, %s: %s", policy, method, pair)
        name = f"{policy}_{method}_{','.join(sources)}_{target}".replace(":", "-")
        one = replace(
            base,
            shift=replace(shift, source=sources, target=target),
            method=replace(base.method, method=(method,), policy=policy),
            run=replace(base.run, out=out / name if out else None),
        )
        one = prepared(one)
        result = adapt(one, images=images, cache=TrunkCache(one.cache, cache.store)).result
        runs.setdefault(policy, {}).setdefault(method, {})[pair] = result
    result = {
        "command": "cross",
        "config": to_dict(config),
        "versions": get_versions(),
        "seconds": {"total": round(time.perf_counter() - began, 3)},
        "runs": runs,
    }
    if folder:
        folder.write_result(result)
    return result


def _open(shift: ShiftConfig, domains: Sequence[str]) -> list[tuple[tuple[str, ...], str]]:
    """Return every pair of a source and a target, of these that are named or of all `domains`."""
    sources, targets = shift.source or domains, (shift.target,) if shift.target else domains
    return [((source,), target) for source in sources for target in targets if source != target]
