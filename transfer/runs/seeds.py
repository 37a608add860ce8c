"""Merge the results of several seeds into one, with means and standard deviations."""

from collections.abc import Sequence
from statistics import fmean, stdev
from typing import Any


def merge_seeds(
    seeds: Sequence[int], results: Sequence[dict[str, Any]], averaged: Sequence[str] = ("test", "per_domain")
) -> dict[str, Any]:
    """Return a single result unchanged, or the mean of several, with ``"sd"`` and each result under ``"seeds"``.

    The values under the keys `averaged` are replaced by their mean; ``"sd"`` holds their sample standard deviation
    (n - 1). ``frozen_unchanged`` is true only if it is for every seed.
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


def _fold(values: Sequence[Any], reduce: Any) -> Any:
    """Reduce nested dicts of numbers leaf by leaf; other values, and keys that not all have, are dropped."""
    first = values[0]
    if isinstance(first, dict):
        common = [key for key in first if all(isinstance(v, dict) and key in v for v in values)]
        folded = {
            key: _fold([v[key] for v in values], reduce) for key in common if key not in ("interval", "confusion")
        }
        return {key: value for key, value in folded.items() if value is not None}
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    return reduce(values) if numbers else None
