"""What was chosen, held against the best there was: what the choice cost, and whether that is more than chance."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from statistics import fmean
from typing import Any

import numpy as np

from transfer.evaluation.paired import paired_test


def best_by_others(accuracies: Mapping[str, Sequence[float]]) -> list[str]:
    """Return for each seed the candidate with the highest mean accuracy over the other seeds; of equals, the first.

    The best on the very images that it is judged on would be the luckiest of many: no choice made before could be as
    good, however right.

    Parameters
    ----------
    accuracies : mapping
        By candidate, of each seed.

    Returns
    -------
    list of str
        Empty with fewer than two seeds.

    Examples
    --------
    >>> best_by_others({"a": [0.9, 0.5, 0.5], "b": [0.6, 0.6, 0.6]})
    ['b', 'a', 'a']
    """
    seeds = min(map(len, accuracies.values()), default=0)

    def elsewhere(candidate: str, seed: int) -> float:
        return fmean(value for place, value in enumerate(accuracies[candidate]) if place != seed)

    return [max(accuracies, key=partial(elsewhere, seed=seed)) for seed in range(seeds)] if seeds > 1 else []


def judge(
    right: Mapping[str, Sequence[np.ndarray | None]],
    chosen: Sequence[str],
    images: Sequence[np.ndarray],
    candidates: Sequence[str],
    reference: str,
) -> dict[str, Any]:
    """Return what `chosen` is worth beside the best of `candidates`, and beside `reference`.

    Parameters
    ----------
    right : mapping
        By name, for each seed whether each test image was answered rightly (0 or 1); None where that could not be done.
    chosen : sequence of str
        For each seed.
    images : sequence of ndarray of str
        The test images of each seed. One that is tested under several seeds counts as one draw.
    candidates : sequence of str
        Those done under all seeds may be the best, the earlier ones first.
    reference : str

    Returns
    -------
    dict
        By seed ``accuracy`` (of what was chosen), ``best`` (by the other seeds), ``best_accuracy`` and ``regret``
        (accuracy that the choice cost); ``against_best`` and ``against_reference``, paired tests over all seeds
        (:func:`transfer.evaluation.paired.paired_test`) with ``worse``, whether the whole interval of the difference is
        below 0. Lists are empty and tests None where there is nothing to tell them by: one seed, or none done.
    """
    done = {name: [some for some in by_seed if some is not None] for name, by_seed in right.items()}
    whole = {name: some for name, some in done.items() if len(some) == len(images)}
    best = best_by_others({name: [float(s.mean()) for s in whole[name]] for name in candidates if name in whole})
    mine = [right[name][seed] for seed, name in enumerate(chosen)]

    def against(names: Sequence[str]) -> dict[str, Any] | None:
        if not names or not set(names) <= set(whole) or any(some is None for some in mine):
            return None
        theirs = [whole[name][seed] for seed, name in enumerate(names)]
        test = paired_test(*(np.concatenate(side) for side in (mine, theirs, images)))  # type: ignore[arg-type]
        return test | {"worse": test["interval"][1] < 0}

    accuracy = [None if some is None else float(some.mean()) for some in mine]
    reached = [float(whole[name][seed].mean()) for seed, name in enumerate(best)]
    told = bool(best) and None not in accuracy
    return {
        "accuracy": accuracy,
        "best": best,
        "best_accuracy": reached,
        "regret": [b - a for a, b in zip(accuracy, reached, strict=True) if a is not None] if told else [],
        "against_best": against(best),
        "against_reference": against([reference] * len(images)),
    }


def summary(cells: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the mean regret over `cells`, each the mean over its seeds (None without any), and where it was worse.

    ``worse_than_best`` and ``worse_than_reference`` are places in `cells`.

    Examples
    --------
    >>> test = {"worse": True}
    >>> cell = {"regret": [0.5, 0.0], "against_best": test, "against_reference": None}
    >>> summary([cell, {"regret": [0.75], "against_best": None, "against_reference": test}])
    {'regret': 0.5, 'worse_than_best': [0], 'worse_than_reference': [1]}
    """

    def worse(name: str) -> Iterator[int]:
        return (place for place, cell in enumerate(cells) if cell[name] and cell[name]["worse"])

    each = [fmean(cell["regret"]) for cell in cells if cell["regret"]]
    return {
        "regret": fmean(each) if each else None,
        "worse_than_best": list(worse("against_best")),
        "worse_than_reference": list(worse("against_reference")),
    }
