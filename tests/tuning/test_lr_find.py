import json
import math
import shlex
from dataclasses import replace

import numpy as np
import pytest
import torch
from model_states import changed_names, copy_state

from transfer.cli.arguments import parse
from transfer.config.checked import from_dict
from transfer.config.commands import LrFindConfig
from transfer.config.train import CacheConfig, LearnConfig, RegulariseConfig, RunConfig, TrainConfig
from transfer.errors import TransferError
from transfer.feature_cache import TrunkCache
from transfer.report.command_line import command_line
from transfer.training.train import train
from transfer.tuning.lr_find import Curve, _batches, lr_find, range_test, sweep


def quadratic(curvature: float, start: float = 3.0):
    """Return a step of gradient descent on ``curvature / 2 * x ** 2``, as `sweep` wants it."""
    place = [start]

    def step(rate: float) -> float:
        loss = curvature / 2 * place[0] ** 2
        place[0] -= rate * curvature * place[0]
        return loss

    return step


def test_what_is_solved_has_no_rate(config):
    with pytest.raises(TransferError, match="head2toe:5 is solved, not trained: there is no rate to find"):
        lr_find(LrFindConfig(config(policy="head2toe:5", probe="trained")))


@pytest.mark.parametrize("curvature", [0.1, 1.0, 100.0])
def test_the_best_region_of_a_quadratic_is_found(curvature):
    """Gradient descent converges fastest at 1 / curvature, and diverges above 2 / curvature."""
    curve = sweep(quadratic(curvature), 1e-6, 1e3, 200)
    for rate in (curve.steepest, curve.minimum_over_ten):
        assert 0.005 / curvature < rate < 2 / curvature
        step = quadratic(curvature)
        assert [step(rate) for _ in range(1500)][-1] < 1e-3 * step(0.0) + 1e-3
    assert curve.rate[-1] < 1e3  # stopped once it had blown up
    assert curve.rate[-1] > 2 / curvature


def test_rates_grow_by_the_same_factor_and_losses_are_smoothed():
    rng = np.random.default_rng(0)
    given = (2 + rng.random(50)).tolist()
    losses = iter(given)
    curve = sweep(lambda rate: next(losses), 1e-4, 1.0, 50)
    assert np.allclose(np.diff(np.log(curve.rate)), math.log(1e4) / 49)
    assert curve.rate[0] == pytest.approx(1e-4)
    assert curve.loss == given
    for i in (0, 1, 7, 49):
        weights = [0.9 ** (i - k) for k in range(i + 1)]
        mean = sum(w * v for w, v in zip(weights, given, strict=False)) / sum(weights)
        assert curve.smoothed[i] == pytest.approx(mean)


def test_suggestions_are_by_their_definitions():
    rate = np.geomspace(1e-5, 10, 61)
    smoothed = 2 - 1 / (1 + np.exp(-4 * (np.log10(rate) + 2))) + np.maximum(np.log10(rate), -0.5) * 2
    curve = Curve(rate.tolist(), smoothed.tolist(), smoothed.tolist())
    assert curve.minimum_over_ten == rate[np.argmin(smoothed)] / 10
    assert math.log10(curve.steepest) == pytest.approx(-2, abs=0.11)


def test_chance_on_the_plateau_is_not_the_steepest_fall():
    """A first batch that is hard by chance makes the smoothed loss fall fastest where nothing is learned."""
    rate = np.geomspace(1e-7, 1, 100)
    loss = 2.5 - 2 / (1 + np.exp(-3 * (np.log10(rate) + 2.5)))
    loss[:6] += [1.5, 1.0, 0.6, 0.3, 0.1, 0.05]
    curve = Curve(rate.tolist(), loss.tolist(), loss.tolist())
    assert math.log10(curve.steepest) == pytest.approx(-2.5, abs=0.1)
    flat = Curve(rate.tolist(), [2.0] * 100, [2.0] * 100)
    assert flat.steepest == flat.minimum_over_ten


def test_the_suggested_command_has_what_the_rate_needs(config, tmp_path):
    given = config(probe="trained", optimizer="sgd", image_size=40, seed=3, out=tmp_path / "a")
    result = lr_find(LrFindConfig(given, low=1e-5, high=10, steps=30))
    found = from_dict(TrainConfig, result["recommended"])
    rate = float(f"{result['suggestion']:.2g}")
    assert found == replace(given, learn=replace(given.learn, lr=rate), run=RunConfig(seed=3))
    assert result["notes"] == [
        "--epochs: no effect, because a range test is not a whole training run; the suggested command has it"
    ]
    parsed = parse(shlex.split(command_line(found))[1:]).config
    assert replace(parsed, run=replace(parsed.run, out=None)) == found  # the command line saves every run
    reached = result["solved_probe"]
    assert reached["val_acc"] == pytest.approx(np.mean(list(reached["val"].values())))
    lines = []
    train(replace(given, learn=replace(given.learn, probe="solved"), run=RunConfig(seed=3)), on_epoch=lines.append)
    assert reached["val"] == next(line["val"] for line in lines if "solved" in line)


def test_the_command_names_no_option_without_effect(config):
    tail = config(policy="partial:1", probe="trained", layer_decay=0.3)
    found = from_dict(TrainConfig, lr_find(LrFindConfig(tail, low=1e-5, high=10, steps=20))["recommended"])
    assert found.policy.policy == "partial:1"
    assert (found.learn.probe, found.policy.layer_decay) == ("solved", 0.8)


def test_a_solved_probe_has_no_rate(config):
    with pytest.raises(TransferError, match="--probe solved has no learning rate"):
        lr_find(LrFindConfig(config(probe="solved")))
    with pytest.raises(TransferError, match="--l2-sp: the whole backbone stays frozen"):
        lr_find(
            LrFindConfig(replace(config(), learn=LearnConfig(probe="trained", regularise=RegulariseConfig(l2_sp=0.1))))
        )


def test_a_loss_that_is_no_number_ends_it():
    losses = iter([1.0, 0.9, 0.8, math.nan])
    assert len(sweep(lambda rate: next(losses), 1e-3, 1, 20).rate) == 3
    with pytest.raises(TransferError, match="not finite at the lowest rate"):
        sweep(lambda rate: math.inf, 1e-3, 1, 20)
    with pytest.raises(TransferError, match="must be above --low"):
        sweep(lambda rate: 1.0, 1, 1e-3, 20)


def test_batches_show_every_row_before_any_again():
    batches = _batches(np.arange(10, 20), 4, 0)
    seen = np.concatenate([next(batches) for _ in range(5)])
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10, 20))
    assert len(next(_batches(np.arange(3), 8, 0))) == 8


@pytest.mark.parametrize("policy", ["linear_probe", "partial:1", "lp_ft:1", "full"])
def test_weights_and_draws_are_as_before(taught, data, policy):
    model, plan = taught(policy)
    before = copy_state(model)
    learns = [p.requires_grad for p in model.parameters()]
    modes = [module.training for module in model.modules()]
    torch.manual_seed(7)
    state = torch.get_rng_state()
    numbers = np.random.get_state()[1].copy()  # noqa: NPY002
    config = LearnConfig(batch_size=8, device="cpu", workers=1)
    test = LrFindConfig(TrainConfig(learn=config), steps=12, low=1e-4, high=1.0)
    curve = range_test(model, plan, data, test, TrunkCache(CacheConfig()))
    assert len(curve.rate) > 2
    after = model.state_dict()
    assert not changed_names(before, after)
    assert torch.equal(state, torch.get_rng_state())
    assert (numbers == np.random.get_state()[1]).all()  # noqa: NPY002
    assert learns == [p.requires_grad for p in model.parameters()]
    assert modes == [module.training for module in model.modules()]
    assert all(p.grad is None for p in model.parameters())
    again = range_test(model, plan, data, test, TrunkCache(CacheConfig()))
    assert again == curve


def test_the_command_writes_what_it_found(config, tmp_path):
    train = config(probe="trained", out=tmp_path / "a")
    result = lr_find(LrFindConfig(train, low=1e-5, high=10, steps=40))
    assert json.loads((tmp_path / "a" / "result.json").read_text()) == result
    assert 1e-5 / 10 <= result["suggestion"] <= 10
    assert result["suggestion"] == min(result["steepest"], result["minimum_over_ten"])


def test_what_has_no_rate_is_refused(config):
    with pytest.raises(TransferError, match="there is no rate to find"):
        lr_find(LrFindConfig(config(optimizer="lbfgs")))
    with pytest.raises(TransferError, match="--heads separate"):
        lr_find(LrFindConfig(config(heads="separate")))
