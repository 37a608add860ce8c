"""Regret: how much accuracy the advised policy loses against the best one, and whether that is significant."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from statistics import fmean
from typing import Any

import numpy as np

from transfer.evaluation.paired import paired_test


def find_best_by_other_seeds(accuracies: Mapping[str, Sequence[float]]) -> list[str]:
    """Return for each seed the candidate with the highest mean accuracy over the other seeds; the first one if equal.

    The best candidate on the test images themselves would be partly the luckiest one, and no choice made beforehand
    could equal it.

    Parameters
    ----------
    accuracies : mapping
        Accuracy of each seed, by candidate.

    Returns
    -------
    list of str
        Empty with fewer than two seeds.

    Examples
    --------
    >>> find_best_by_other_seeds({"a": [0.9, 0.5, 0.5], "b": [0.6, 0.6, 0.6]})
    ['b', 'a', 'a']
    """
    seeds = min(map(len, accuracies.values()), default=0)

    def mean_without(candidate: str, seed: int) -> float:
        return fmean(value for i, value in enumerate(accuracies[candidate]) if i != seed)

    return [max(accuracies, key=partial(mean_without, seed=seed)) for seed in range(seeds)] if seeds > 1 else []


def compare_with_best(
    correct: Mapping[str, Sequence[np.ndarray | None]],
    chosen: Sequence[str],
    images: Sequence[np.ndarray],
    candidates: Sequence[str],
    reference: str,
) -> dict[str, Any]:
    """Return the accuracy of the `chosen` policies compared with the best of `candidates` and with `reference`.

    Parameters
    ----------
    correct : mapping
        By policy and seed: whether each test image is classified correctly (0 or 1); None where the run failed.
    chosen : sequence of str
        The chosen policy of each seed.
    images : sequence of ndarray of str
        The test images of each seed. An image tested under several seeds counts as one sample.
    candidates : sequence of str
        Policies among which the best is sought; those that failed under a seed are left out. The first wins a tie.
    reference : str

    Returns
    -------
    dict
        By seed ``accuracy`` (of the chosen policy), ``best`` (by the other seeds), ``best_accuracy`` and ``regret``
        (best minus chosen accuracy). ``against_best`` and ``against_reference``: paired tests over all seeds
        (:func:`transfer.evaluation.paired.paired_test`) with ``worse``, whether the whole interval of the difference is
        below 0. With one seed, or if no run succeeded, lists are empty and tests are None.
    """
    finished = {name: [hits for hits in by_seed if hits is not None] for name, by_seed in correct.items()}
    complete = {name: by_seed for name, by_seed in finished.items() if len(by_seed) == len(images)}
    best = find_best_by_other_seeds(
        {name: [float(hits.mean()) for hits in complete[name]] for name in candidates if name in complete}
    )
    chosen_hits = [correct[name][seed] for seed, name in enumerate(chosen)]

    def test_against(names: Sequence[str]) -> dict[str, Any] | None:
        if not names or not set(names) <= set(complete) or any(hits is None for hits in chosen_hits):
            return None
        other_hits = [complete[name][seed] for seed, name in enumerate(names)]
        sides = (np.concatenate(side) for side in (chosen_hits, other_hits, images))  # type: ignore[arg-type]
        test = paired_test(*sides)
        return test | {"worse": test["interval"][1] < 0}

    accuracy = [None if hits is None else float(hits.mean()) for hits in chosen_hits]
    best_accuracy = [float(complete[name][seed].mean()) for seed, name in enumerate(best)]
    comparable = bool(best) and None not in accuracy
    return {
        "accuracy": accuracy,
        "best": best,
        "best_accuracy": best_accuracy,
        "regret": [b - a for a, b in zip(accuracy, best_accuracy, strict=True) if a is not None] if comparable else [],
        "against_best": test_against(best),
        "against_reference": test_against([reference] * len(images)),
    }


def summarise_cells(cells: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the mean regret over `cells` (each its mean over seeds; None without any), and the cells that are worse.

    ``worse_than_best`` and ``worse_than_reference`` are indices into `cells`.

    Examples
    --------
    >>> test = {"worse": True}
    >>> cell = {"regret": [0.5, 0.0], "against_best": test, "against_reference": None}
    >>> summarise_cells([cell, {"regret": [0.75], "against_best": None, "against_reference": test}])
    {'regret': 0.5, 'worse_than_best': [0], 'worse_than_reference': [1]}
    """

    def find_worse(name: str) -> Iterator[int]:
        return (i for i, cell in enumerate(cells) if cell[name] and cell[name]["worse"])

    regrets = [fmean(cell["regret"]) for cell in cells if cell["regret"]]
    return {
        "regret": fmean(regrets) if regrets else None,
        "worse_than_best": list(find_worse("against_best")),
        "worse_than_reference": list(find_worse("against_reference")),
    }
