"""The heads that fit a table: one for each of its targets."""

import numpy as np

from transfer.config.ranges import Within
from transfer.config.train import HeadConfig
from transfer.data.splits import Splits
from transfer.data.table import ImageTable
from transfer.errors import TransferError, did_you_mean
from transfer.heads.heads import PAIRS
from transfer.heads.registry import find_head_kind
from transfer.heads.spec import HeadSpec


def head_specs(table: ImageTable, parts: Splits, config: HeadConfig) -> tuple[dict[str, list[HeadSpec]], list[str]]:
    """Return the heads of each network, and notes on them. A set with one domain has no domain head."""
    weights = _loss_weights(config.loss_weights, table)
    specs, notes = [], []
    for taken, what in (("joint", "what a joint head's own output is"), (PAIRS, "what sets of pairs are called")):
        if taken in table.targets:
            raise TransferError(f"a target cannot be called {taken!r}, which is {what}: rename it")
    for name, target in table.targets.items():
        if name == "object" and not table.has_objects:
            notes.append("no object is given: no object head, and splits go by the sets of labels")
            continue
        notes += find_head_kind(target.kind).describe_training(name, target, parts.train)
        seen = target.values[parts.train][target.known[parts.train]]
        if name == "domain" and len(np.unique(seen)) < 2:
            notes.append("one domain only: no domain head")
            continue
        centre, spread = find_head_kind(target.kind).centre_and_spread(seen)
        specs.append(HeadSpec(name, target.kind, target.classes, weights.get(name, 1.0), centre, spread))
    missing = []
    for i, domain in enumerate(table.domains if table.has_objects else ()):
        absent = np.setdiff1d(np.arange(len(table.objects)), table.object[table.domain == i])
        lacking = [table.objects[k] for k in absent]
        more = f" and {len(lacking) - 3} more" if len(lacking) > 3 else ""
        missing += [f"{domain} has no image of {', '.join(lacking[:3])}{more}"] if lacking else []
    if missing and len(table.domains) > 1:
        notes.append("object sets differ between domains: " + "; ".join(missing))
    if config.heads == "separate":
        return {spec.name: [spec] for spec in specs}, notes
    return {"": specs}, notes


def _loss_weights(texts: tuple[str, ...], table: ImageTable) -> dict[str, float]:
    weights = {}
    for text in texts:
        name, _, value = text.partition(":")
        if name not in table.targets:
            raise TransferError(f"--loss-weights: no head {name!r}{did_you_mean(name, table.targets)}")
        try:
            weights[name] = float(value)
        except ValueError as error:
            raise TransferError(f"--loss-weights {text!r}: write NAME:NUMBER, such as {name}:0.5") from error
        if weights[name] not in Within(0):
            raise TransferError(f"--loss-weights {text!r}: the weight must be {Within(0)}")
    return weights
