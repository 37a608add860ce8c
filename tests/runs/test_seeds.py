from typing import Any

import numpy as np
import pytest

from transfer.runs.seeds import merge_seeds


def result(seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)

    def report() -> dict[str, Any]:
        return {
            "accuracy": float(rng.random()),
            "macro_f1": float(rng.random()),
            "n": 20,
            "interval": {"accuracy": [0.1, 0.9]},
            "confusion": [[1, 2], [3, 4]],
            "per_class": {"a": {"recall": float(rng.random()), "precision": None if seed == 1 else 0.5, "n": 5}},
        }

    return {
        "command": "train",
        "test": {"object": report(), "domain": report()},
        "per_domain": {"amazon": {"object": {"accuracy": float(rng.random()), "n": 9}}},
        "seconds": {"total": float(seed + 1), "trunk": 0.5},
        "policy": {"trained_parameters": 7, "frozen_unchanged": True, "moved": []},
        "notes": ["the same note", f"note {seed}"],
        "stopped": "",
    }


def test_one_seed_is_itself() -> None:
    one = result(0)
    assert merge_seeds([0], [one]) == one
    assert merge_seeds([0], [one]) is not one


@pytest.mark.parametrize("count", [2, 3, 5])
def test_mean_and_sample_standard_deviation(count: int) -> None:
    results = [result(seed) for seed in range(count)]
    merged = merge_seeds(range(count), results)
    for head in ("object", "domain"):
        for score in ("accuracy", "macro_f1"):
            values = np.array([r["test"][head][score] for r in results])
            assert merged["test"][head][score] == pytest.approx(np.mean(values))
            assert merged["sd"]["test"][head][score] == pytest.approx(np.std(values, ddof=1))
    values = np.array([r["per_domain"]["amazon"]["object"]["accuracy"] for r in results])
    assert merged["per_domain"]["amazon"]["object"]["accuracy"] == pytest.approx(values.mean())
    assert merged["sd"]["per_domain"]["amazon"]["object"]["accuracy"] == pytest.approx(values.std(ddof=1))
    values = np.array([r["test"]["object"]["per_class"]["a"]["recall"] for r in results])
    assert merged["test"]["object"]["per_class"]["a"]["recall"] == pytest.approx(values.mean())
    assert merged["seconds"] == pytest.approx({"total": sum(range(1, count + 1)), "trunk": 0.5 * count})


def test_each_seed_is_kept_whole() -> None:
    results = [result(seed) for seed in (5, 3)]
    merged = merge_seeds((5, 3), results)
    assert merged["seeds"] == [{"seed": 5, **results[0]}, {"seed": 3, **results[1]}]


def test_what_has_no_mean_is_left_out() -> None:
    report = merge_seeds((0, 1), [result(0), result(1)])["test"]["object"]
    assert "interval" not in report
    assert "confusion" not in report
    assert "precision" not in report["per_class"]["a"]  # missing under one seed


def test_a_class_or_domain_that_one_seed_lacks_is_left_out() -> None:
    one, two = result(0), result(1)
    two["per_domain"]["dslr"] = one["per_domain"]["webcam"] = {"object": {"accuracy": 0.5, "n": 1}}
    assert set(merge_seeds((0, 1), [one, two])["per_domain"]) == {"amazon"}


def test_frozen_unchanged_holds_only_if_it_does_for_all() -> None:
    results = [result(seed) for seed in range(3)]
    assert merge_seeds(range(3), results)["policy"]["frozen_unchanged"] is True
    results[1]["policy"] |= {"frozen_unchanged": False, "moved": ["layer1.bn1.running_mean"]}
    policy = merge_seeds(range(3), results)["policy"]
    assert policy["frozen_unchanged"] is False
    assert policy["moved"] == ["layer1.bn1.running_mean"]
    assert policy["trained_parameters"] == 7


def test_notes_once_and_every_reason_for_stopping() -> None:
    results = [result(0), result(1)]
    results[1]["stopped"] = "the loss became nan"
    merged = merge_seeds((0, 1), results)
    assert merged["notes"] == ["the same note", "note 0", "note 1"]
    assert merged["stopped"] == "the loss became nan"


def test_the_given_results_stay_as_they_were() -> None:
    results = [result(0), result(1)]
    merge_seeds((0, 1), results)
    assert results == [result(0), result(1)]
