"""Regret against naive references, and cases without a comparison."""

from statistics import fmean

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from studies.regret import compare_with_best, find_best_by_other_seeds, summarise_cells

from transfer.evaluation.paired import paired_test

SHARE = st.integers(0, 4).map(lambda quarters: quarters / 4)  # ties are frequent


@given(table=st.integers(2, 4).flatmap(lambda n: st.lists(st.lists(SHARE, min_size=n, max_size=n), min_size=1)))
def test_best_by_other_seeds_is_the_first_of_the_highest_means_without_the_seed(table: list[list[float]]) -> None:
    names = [f"p{row}" for row in range(len(table))]
    found = find_best_by_other_seeds(dict(zip(names, table, strict=True)))
    for seed in range(len(table[0])):
        best, name = -1.0, ""
        for row in range(len(table)):
            rest = table[row][:seed] + table[row][seed + 1 :]
            if sum(rest) > best:  # quarters add up without rounding
                best, name = sum(rest), names[row]
        assert found[seed] == name


def test_one_seed_has_no_best() -> None:
    assert find_best_by_other_seeds({"a": [0.5], "b": [0.7]}) == []
    assert find_best_by_other_seeds({}) == []


def made(seeds: int, n: int, chances: dict[str, float], rng: np.random.Generator) -> dict[str, list]:
    return {name: [(rng.random(n) < p).astype(float) for _ in range(seeds)] for name, p in chances.items()}


def test_comparison_equals_the_sums_by_hand() -> None:
    rng = np.random.default_rng(1)
    right = made(3, 40, {"probe": 0.6, "full": 0.8, "mid": 0.7}, rng)
    images = [np.array([f"{i}.png" for i in rng.permutation(60)[:40]]) for _ in range(3)]
    chosen = ["mid", "probe", "full"]
    found = compare_with_best(right, chosen, images, ["probe", "full", "mid"], "probe")
    share = {name: [sum(r) / 40 for r in by] for name, by in right.items()}
    best = [max(share, key=lambda p, s=s: sum(share[p][t] for t in range(3) if t != s)) for s in range(3)]
    assert found["best"] == best
    assert found["accuracy"] == pytest.approx([share["mid"][0], share["probe"][1], share["full"][2]])
    assert found["best_accuracy"] == pytest.approx([share[best[s]][s] for s in range(3)])
    assert found["regret"] == pytest.approx([share[best[s]][s] - share[chosen[s]][s] for s in range(3)])
    paths = np.concatenate(images)
    mine = np.concatenate([right[chosen[s]][s] for s in range(3)])
    for name, others in (("against_best", best), ("against_reference", ["probe"] * 3)):
        test = paired_test(mine, np.concatenate([right[others[s]][s] for s in range(3)]), paths)
        assert found[name] == test | {"worse": test["interval"][1] < 0}
        assert test["images"] == len(set(paths)) < 120  # an image of several seeds is one draw


def test_worse_only_where_the_whole_interval_is_below_0() -> None:
    right = made(2, 200, {"bad": 0.3, "good": 0.9, "even": 0.9}, np.random.default_rng(0))
    images = [np.array([f"{i}.png" for i in range(200)])] * 2
    for chosen, worse in (("bad", True), ("even", False), ("good", False)):
        found = compare_with_best(right, [chosen] * 2, images, ["good", "bad"], "good")
        assert (found["against_best"]["worse"], found["against_reference"]["worse"]) == (worse, worse)
    better = compare_with_best(right, ["good"] * 2, images, ["bad"], "bad")
    assert not better["against_best"]["worse"]
    assert max(better["regret"]) < 0  # what was chosen is no candidate, and better than all that are


def test_one_seed_is_compared_with_the_reference_only() -> None:
    right = {"probe": [np.array([1.0, 0.0])], "full": [np.array([1.0, 1.0])]}
    found = compare_with_best(right, ["full"], [np.array(["a", "b"])], ["probe", "full"], "probe")
    assert (found["best"], found["best_accuracy"], found["regret"]) == ([], [], [])
    assert found["against_best"] is None
    assert found["against_reference"]["difference"] == 0.5
    assert found["accuracy"] == [1.0]


def test_a_policy_that_failed_under_a_seed_is_not_the_best() -> None:
    half, full = np.array([1.0, 0.0]), np.array([1.0, 1.0])
    right = {"probe": [half, half], "norm": [full, None]}
    images = [np.array(["a", "b"])] * 2
    found = compare_with_best(right, ["probe", "probe"], images, ["norm", "probe"], "probe")
    assert found["best"] == ["probe", "probe"]
    assert found["regret"] == [0, 0]
    chosen = compare_with_best(right, ["norm", "norm"], images, ["norm", "probe"], "probe")
    assert chosen["accuracy"] == [1.0, None]
    assert (chosen["regret"], chosen["against_best"], chosen["against_reference"]) == ([], None, None)
    nothing = compare_with_best({"probe": [None, None]}, ["probe"] * 2, images, ["probe"], "probe")
    assert (nothing["best"], nothing["against_reference"]) == ([], None)


def test_the_mean_is_over_cells_not_over_seeds() -> None:
    def cell(regret: list[float], worse: bool | None) -> dict:
        test = None if worse is None else {"worse": worse}
        return {"regret": regret, "against_best": test, "against_reference": {"worse": not worse}}

    cells = [cell([0.1, 0.3, 0.2], False), cell([0.01], True), cell([], None)]
    assert summarise_cells(cells)["regret"] == pytest.approx(fmean([0.2, 0.01]))
    assert summarise_cells(cells)["worse_than_best"] == [1]
    assert summarise_cells(cells)["worse_than_reference"] == [0, 2]
    assert summarise_cells([])["regret"] is None
