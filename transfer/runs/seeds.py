"""Merge the results of several seeds into one, with means and standard deviations; a score of a result as text."""

from collections.abc import Mapping, Sequence
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


def score_text(result: Mapping[str, Any], head: str, score: str = "accuracy", part: str = "test") -> str:
    """Return a score of a head: ``0.894 ± 0.007`` over seeds, ``0.894 [0.87, 0.91]`` of one seed, ``-`` if missing."""
    report = result.get(part, {}).get(head, {})
    if score not in report:
        return "-"
    if "sd" in result:
        return f"{report[score]:.3f} ± {result['sd'][part][head][score]:.3f}"
    if score in report.get("interval", {}):
        low, high = report["interval"][score]
        return f"{report[score]:.3f} [{low:.3f}, {high:.3f}]"
    return f"{report[score]:.3f}"


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
