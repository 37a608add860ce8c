from dataclasses import replace

import numpy as np
import pytest

from transfer.curation.picking.choose import PickingTask
from transfer.curation.picking.simulate import (
    LabelledSplit,
    SimulatedRound,
    count_labels_needed,
    simulate_rounds,
    summarise_rounds,
)


@pytest.fixture
def split():
    """Three classes, of which two are rare, in features that tell them apart."""
    rng = np.random.default_rng(0)
    truth = np.array([0] * 60 + [1] * 10 + [2] * 10 + [0, 1, 2] * 20)
    features = (2 * np.eye(6)[truth] + 0.4 * rng.normal(size=(len(truth), 6))).astype(np.float32)
    pool = PickingTask(features[:80], truth[:80], ("a", "b", "c"))
    return LabelledSplit(pool, features[80:], truth[80:])


def test_rounds_add_labels_and_the_probe_learns(split):
    rounds = simulate_rounds(split, "auto", [3, 3, 10], seed=0)
    assert [each.labels for each in rounds] == [3, 6, 16]
    assert rounds[0].seen == 1.0  # an image of each class, though two are rare
    assert rounds[-1].accuracy > 0.95
    assert all(0 <= each.propagated <= 1 for each in rounds)
    random = simulate_rounds(split, "random", [3, 3, 10], seed=0)
    assert random[0].seen < 1.0
    assert random[0].accuracy < rounds[0].accuracy


@pytest.mark.parametrize("strategy", ["auto", "badge", "random"])
def test_neither_test_rows_nor_labels_that_are_not_picked_have_a_say(split, strategy):
    """With other test rows, and with other labels of what is picked last, the picks before stay."""
    one = simulate_rounds(split, strategy, [20, 5], seed=1)
    swapped = replace(split, test_labels=(split.test_labels + 1) % 3)
    other = simulate_rounds(swapped, strategy, [20, 5], seed=1)
    assert [each.seen for each in one] == [each.seen for each in other]
    assert one[-1].accuracy > other[-1].accuracy
    hidden = replace(split.pool, labels=(split.pool.labels + 1) % 3)  # the same for a strategy, under other names
    renamed = simulate_rounds(replace(split, pool=hidden), strategy, [20], seed=1)
    assert renamed[0].seen == one[0].seen


def test_a_strategy_that_needs_labels_begins_at_random(split):
    first, other = (simulate_rounds(split, name, [12], seed=2)[0] for name in ("margin", "random"))
    assert first == other


def test_labels_needed_are_interpolated():
    assert count_labels_needed([10, 20, 40], [0.5, 0.4, 0.8], 0.6) == 30
    assert count_labels_needed([10, 20], [0.5, 0.6], 0.5) == 10
    assert count_labels_needed([10, 20], [0.5, 0.6], 0.61) is None


def test_the_goal_is_what_random_picks_reach_in_the_end():
    def rounds(*values):
        return [SimulatedRound(10 * (i + 1), a, p, s) for i, (a, p, s) in enumerate(values)]

    summary = summarise_rounds(
        {
            "random": [rounds((0.2, 0.2, 0.5), (0.6, 0.7, 1.0)), rounds((0.4, 0.4, 0.5), (0.8, 0.7, 1.0))],
            "auto": [rounds((0.5, 0.6, 1.0), (0.9, 0.9, 1.0)), rounds((0.5, 0.7, 1.0), (0.9, 0.9, 1.0))],
        }
    )
    assert summary["labels"] == [10, 20]
    assert summary["curves"]["random"] == {"accuracy": [0.3, 0.7], "propagated": [0.3, 0.7], "seen": [0.5, 1.0]}
    assert summary["goal"] == 0.7
    assert summary["needed"] == {"random": 20.0, "auto": pytest.approx(12.0)}
