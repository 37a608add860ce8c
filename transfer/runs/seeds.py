"""Results of several seeds -> one result with mean, standard deviation and each."""

from collections.abc import Sequence
from statistics import fmean, stdev
from typing import Any

import numpy as np

from transfer.data.splits import Splits
from transfer.data.table import ImageTable


def merge_seeds(
    seeds: Sequence[int], results: Sequence[dict[str, Any]], averaged: Sequence[str] = ("test", "per_domain")
) -> dict[str, Any]:
    """Return the only result as it is, or of several their mean, with ``"sd"`` and each one under ``"seeds"``.

    Means and standard deviations (of the sample, n - 1) are of what lies under the keys `averaged`.
    ``frozen_unchanged`` holds only if it does for every seed.
    """
    if len(results) == 1:
        return dict(results[0])
    merged = dict(results[0])
    for name in averaged:
        merged[name] = _fold([r[name] for r in results], fmean)
    merged["sd"] = {name: _fold([r[name] for r in results], stdev) for name in averaged}
    merged["seconds"] = _fold([r["seconds"] for r in results], sum)
    merged["policy"] = {
        **results[0]["policy"],
        "frozen_unchanged": all(r["policy"]["frozen_unchanged"] for r in results),
        "moved": sorted({name for r in results for name in r["policy"]["moved"]}),
    }
    merged["notes"] = list(dict.fromkeys(note for r in results for note in r["notes"]))
    merged["stopped"] = "; ".join(r["stopped"] for r in results if r.get("stopped"))
    merged["seeds"] = [{"seed": seed} | result for seed, result in zip(seeds, results, strict=True)]
    return merged


def _fold(values: Sequence[Any], how: Any) -> Any:
    """Return nested dicts of numbers folded leaf by leaf; what is no number, or is missing somewhere, is left out."""
    first = values[0]
    if isinstance(first, dict):
        common = [key for key in first if all(isinstance(v, dict) and key in v for v in values)]
        folded = {key: _fold([v[key] for v in values], how) for key in common if key not in ("interval", "confusion")}
        return {key: value for key, value in folded.items() if value is not None}
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    return how(values) if numbers else None


def class_balance(table: ImageTable, parts: Splits) -> dict[str, Any]:
    """Return the training images of the rarest and the commonest object, and how many times as many these are."""
    objects = table.object[parts.train]
    counts = np.bincount(objects[objects >= 0], minlength=len(table.objects))
    few, many = int(counts.argmin()), int(counts.argmax())
    return {
        "rarest": {table.objects[few]: int(counts[few])},
        "commonest": {table.objects[many]: int(counts[many])},
        "imbalance": round(float(counts[many] / max(counts[few], 1)), 2),
    }
