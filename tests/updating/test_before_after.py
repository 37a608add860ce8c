from dataclasses import replace

import numpy as np
import pytest

from transfer.data.table import ImageTable, Target, make_softmax_target
from transfer.evaluation.paired import paired_test
from transfer.updating.before_after import compare_heads, describe_comparison


def table(labels: list[str], classes: tuple[str, ...], domains: bool = True) -> ImageTable:
    blank = np.full(len(labels), "")
    values = np.array([classes.index(label) if label else -1 for label in labels])
    targets = {"object": Target(values, "softmax", classes), "domain": make_softmax_target(["x"] * len(labels))}
    return ImageTable(np.array([f"/{i}" for i in range(len(labels))]), targets, blank, blank)


def one_hot(decided: list[int], width: int) -> np.ndarray:
    return np.eye(width)[decided]


TRUTH = ["a", "a", "b", "b", "c", "c", ""]
# The old model knows a and b alone; c comes behind them.
BEFORE = table(TRUTH, ("a", "b", "c")), {"object": one_hot([0, 1, 1, 1, 0, 0, 0], 2)}
# The new one has its classes in another order.
AFTER = table(TRUTH, ("c", "b", "a")), {"object": one_hot([2, 2, 0, 1, 0, 0, 1], 3)}
OLD = np.array([True, True, True, True, False, False, True])


def test_both_models_are_compared_on_the_same_images() -> None:
    (head,) = compare_heads(BEFORE, AFTER, OLD).values()
    assert head.before.tolist() == [True, False, True, True, False, False]
    assert head.after.tolist() == [True, True, False, True, True, True]
    found = describe_comparison({"object": head})
    paired = paired_test(np.array([1, 1, 0, 1]), np.array([1, 0, 1, 1]))
    assert found["old_test"] == {"object": {"n": 4, "before": 0.75, "after": 0.75, "paired": paired}}
    assert found["new_test"]["object"] | {"paired": None} == {"n": 2, "before": 0.0, "after": 1.0, "paired": None}
    assert found["new_test"]["object"]["paired"]["difference"] == 1.0
    assert found["per_class"]["object"] == {
        "a": {"n": 2, "before": 0.5, "after": 1.0, "change": 0.5},
        "b": {"n": 2, "before": 1.0, "after": 0.5, "change": -0.5},
        "c": {"n": 2, "before": 0.0, "after": 1.0, "change": 1.0},
    }


def test_a_part_without_images_is_left_out() -> None:
    found = describe_comparison(compare_heads(BEFORE, AFTER, np.ones(7, bool)))
    assert found["new_test"] == {}
    assert found["old_test"]["object"]["n"] == 6
    assert describe_comparison({}) == {"old_test": {}, "new_test": {}, "per_class": {}}


@pytest.mark.parametrize("side", [0, 1])
def test_a_head_that_one_model_lacks_is_left_out(side: int) -> None:
    both = [BEFORE, AFTER]
    both[side] = both[side][0], both[side][1] | {"domain": np.ones((7, 1))}
    assert list(compare_heads(both[0], both[1], OLD)) == ["object"]


def test_a_head_of_numbers_is_left_out() -> None:
    target = {"n": Target(np.arange(7.0), "regression")}
    before, after = ((replace(t, targets=t.targets | target), p | {"n": np.zeros(7)}) for t, p in (BEFORE, AFTER))
    assert list(compare_heads(before, after, OLD)) == ["object"]
