import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest

from transfer.config.train import CacheConfig, LearnConfig, TrainConfig
from transfer.errors import TransferError
from transfer.tuning.space import (
    DEFAULT_VALUES,
    NOT_SEARCHABLE,
    Options,
    Range,
    apply_settings,
    grid,
    narrow_space,
    parse_space,
    searchable_settings,
    settings_at_boundary,
)


def test_draws_are_uniform_in_the_logarithm() -> None:
    rng = np.random.default_rng(0)
    parameter = Range(1e-5, 1.0)
    draws = [parameter.at(rng.random()) for _ in range(4000)]
    assert kstest(np.log10(draws), "uniform", (-5, 5)).pvalue > 0.01
    assert kstest(draws, "uniform", (0, 1)).pvalue < 1e-6
    assert np.mean(np.array(draws) < 1e-3) == pytest.approx(0.4, abs=0.03)


def test_draws_of_a_range_from_zero_are_uniform() -> None:
    (parameter,) = parse_space(["dropout=0:0.8"]).values()
    rng = np.random.default_rng(0)
    draws = [parameter.at(rng.random()) for _ in range(4000)]
    assert kstest(draws, "uniform", (0, 0.8)).pvalue > 0.01


def test_each_option_is_as_likely() -> None:
    rng = np.random.default_rng(0)
    choice = Options(("a", "b", "c"))
    draws = [choice.at(rng.random()) for _ in range(3000)]
    assert all(abs(draws.count(option) / 3000 - 1 / 3) < 0.03 for option in choice.options)


@given(st.floats(1e-9, 1e3), st.floats(1.001, 1e6), st.floats(0, 1), st.booleans())
def test_a_quantile_leads_back(low: float, factor: float, quantile: float, log: bool) -> None:
    parameter = Range(low, low * factor, log=log)
    value = parameter.at(quantile)
    assert parameter.low <= value <= parameter.high
    assert parameter.quantile(value) == pytest.approx(quantile, abs=1e-6)


def test_whole_numbers_stay_whole_and_within() -> None:
    (parameter,) = parse_space(["batch-size=10:100"]).values()
    values = {parameter.at(q) for q in np.linspace(0, 1, 300)}
    assert all(isinstance(value, int) for value in values)
    assert (min(values), max(values)) == (10, 100)


@given(st.integers(4, 300))
def test_a_grid_is_the_product_of_its_levels(trials: int) -> None:
    space = parse_space(["lr=1e-4:1", "weight_decay=1e-6:1e-2"])
    points = grid(space, trials)
    count = math.isqrt(trials)
    assert len(points) == count**2
    levels = [[low * ratio ** (i / (count - 1)) for i in range(count)] for low, ratio in ((1e-4, 1e4), (1e-6, 1e4))]
    for point, (lr, decay) in zip(points, itertools.product(*levels), strict=True):
        assert point["lr"] == pytest.approx(lr)
        assert point["weight_decay"] == pytest.approx(decay)


def test_a_grid_has_every_option_and_says_how_many_trials_it_needs() -> None:
    space = parse_space(["lr=1e-4:1", "optimizer=adamw,sgd", "heads=dual,joint"])
    points = grid(space, 15)
    assert len(points) == 12  # 3 rates
    assert {(p["optimizer"], p["heads"]) for p in points} == set(itertools.product(("adamw", "sgd"), ("dual", "joint")))
    with pytest.raises(TransferError, match="has at least 8 points: set --trials 8"):
        grid(space, 7)


def test_the_narrowed_space_holds_the_good_and_little_more() -> None:
    space = parse_space(["lr=1e-4:1", "dropout=0:0.8", "optimizer=adamw,sgd,lion"])
    good = [{"lr": 1e-3, "dropout": 0.4, "optimizer": "sgd"}, {"lr": 1e-2, "dropout": 0.6, "optimizer": "lion"}]
    small = narrow_space(space, good)
    assert small["lr"].low == pytest.approx(1e-3 * 10**-0.2)  # 0.05 of four decades
    assert small["lr"].high == pytest.approx(1e-2 * 10**0.2)
    assert (small["dropout"].low, small["dropout"].high) == (pytest.approx(0.36), pytest.approx(0.64))
    assert not small["dropout"].log
    assert small["optimizer"].options == ("sgd", "lion")
    assert narrow_space(space, [{"lr": 1.0, "dropout": 0.0, "optimizer": "sgd"}])["lr"].high == 1.0


def test_a_best_at_an_end_is_seen() -> None:
    space = parse_space(["lr=1e-4:1", "weight_decay=1e-4:1", "optimizer=adamw"])
    assert settings_at_boundary(space, {"lr": 0.9, "weight_decay": 0.01, "optimizer": "adamw"}) == ["lr"]


def test_every_setting_is_put_where_it_belongs() -> None:
    settings = {"lr": 0.1, "policy": "partial:1", "heads": "joint", "hidden": "64-32", "mixup": 0.2, "dropout": 0.3}
    made = apply_settings(TrainConfig(), settings)
    assert (made.learn.lr, made.policy.policy, made.heads.heads) == (0.1, "partial:1", "joint")
    assert (made.heads.hidden, made.heads.dropout, made.learn.regularise.mixup) == ((64, 32), 0.3, 0.2)
    assert apply_settings(made, {"hidden": "0"}).heads.hidden == ()
    views = TrainConfig(learn=LearnConfig(augment="flip"), cache=CacheConfig(views=3))
    assert apply_settings(views, {"augment": "none"}).cache.views == 0
    assert apply_settings(views, {"augment": "crop"}).cache.views == 3


def test_what_has_usual_values_can_be_named_alone() -> None:
    space = parse_space(DEFAULT_VALUES)
    assert set(space) == set(DEFAULT_VALUES)
    for name, parameter in space.items():
        for quantile in (0.0, 0.5, 1.0):
            apply_settings(TrainConfig(), {name: parameter.at(quantile)})
    assert not set(searchable_settings()) & set(NOT_SEARCHABLE)


MISTAKES = {
    "learning_rte=1:2": "no setting 'learning_rte'",
    "weight_deca": r"no setting 'weight_deca' to search over \(did you mean 'weight_decay'",
    "heads=dual,jont": r"no value 'jont' \(did you mean 'joint'\?\)",
    "lr=fast:slow": "LOW:HIGH or A,B,C in numbers",
    "lr=1:1e-3": "0 <= LOW < HIGH",
    "lr=": "LOW:HIGH",
    "batch_size=1.5:4": "whole numbers only",
    "momentum": "give its values as momentum=LOW:HIGH",
    "epochs=1:5": "no setting 'epochs'",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_a_mistake_says_what_to_write(text: str) -> None:
    with pytest.raises(TransferError, match=MISTAKES[text]):
        parse_space([text])


def test_an_empty_space_and_a_hidden_size_that_is_none() -> None:
    with pytest.raises(TransferError, match="--space is empty"):
        parse_space([])
    with pytest.raises(TransferError, match="'big' is not a size"):
        apply_settings(TrainConfig(), {"hidden": "big"})
