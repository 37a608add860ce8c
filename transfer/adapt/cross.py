"""Methods crossed with policies and pairs of domains: one result, one table."""

import itertools
import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from transfer.adapt.config import CrossConfig
from transfer.adapt.run import adapt, prepared, read
from transfer.cache import TrunkCache
from transfer.learn.folder import RunFolder
from transfer.learn.setup import versions
from transfer.plain import to_dict

log = logging.getLogger(__name__)


def cross(config: CrossConfig, pairs: Sequence[tuple[str, str]] | None = None) -> dict[str, Any]:
    """Adapt by each method under each policy on each pair; return all results.

    Parameters
    ----------
    config : CrossConfig
    pairs : sequence of (str, str), optional
        Source and target of each (default: those that `config` names, or every ordered pair of the set's domains).

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
    folder = RunFolder(out, to_dict(config), overwrite=base.run.overwrite) if out else None
    cache = TrunkCache(base.cache)
    images = read(shift, cache)
    if pairs is None:
        named = [(source, shift.target) for source in shift.source if shift.target]
        pairs = named or list(itertools.permutations(images.table.domains, 2))
    runs: dict[str, dict[str, dict[str, Any]]] = {}
    for policy, method, (source, target) in itertools.product(config.policies, config.methods, pairs):
        log.info("%s, %s: %s -> %s", policy, method, source, target)
        name = f"{policy}_{method}_{source}_{target}".replace(":", "-")
        one = replace(
            base,
            shift=replace(shift, source=(source,), target=target),
            method=replace(base.method, method=(method,), policy=policy),
            run=replace(base.run, out=out / name if out else None),
        )
        one = prepared(one)
        result = adapt(one, images=images, cache=TrunkCache(one.cache, cache.store)).result
        runs.setdefault(policy, {}).setdefault(method, {})[f"{source} -> {target}"] = result
    result = {
        "command": "cross",
        "config": to_dict(config),
        "versions": versions(),
        "seconds": {"total": round(time.perf_counter() - began, 3)},
        "runs": runs,
    }
    if folder:
        folder.result(result)
    return result
