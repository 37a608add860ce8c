"""Laws 1 and 9 inside the loop: what moves against the plan is seen, and unfreezing rebuilds nothing."""

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from transfer import freeze
from transfer.config.train import LearnConfig
from transfer.feature_cache import TrunkCache
from transfer.training import optimizers
from transfer.training.epoch import TrainingData
from transfer.training.fit import fit


def tensors(network: nn.Module) -> dict[str, Tensor]:
    both = [*network.named_parameters(), *network.named_buffers()]
    return {name: tensor.detach().clone() for name, tensor in both}


def same(a: Tensor, b: Tensor) -> bool:
    return a.numpy().tobytes() == b.numpy().tobytes()


def nudged(tensor: Tensor) -> None:
    """Move one number of `tensor` to its neighbour."""
    with torch.no_grad():
        first = (0,) * tensor.ndim
        one = tensor[first]
        tensor[first] = torch.nextafter(one, torch.tensor(torch.inf)) if one.is_floating_point() else one + 1


@pytest.mark.parametrize("what", ["running_var", "num_batches_tracked", "weight"])
@pytest.mark.parametrize("policy", ["linear_probe", "partial:1", "gradual:1"])
def test_one_unit_in_the_last_place_is_seen(taught: Callable, data: TrainingData, policy: str, what: str) -> None:
    """Breaks the law on purpose: a frozen tensor moves by the least that it can while training runs."""
    model, the_plan = taught(policy)
    network = model.backbone.network
    stem = [
        t
        for t in (*dict(network.named_parameters()), *dict(network.named_buffers()))
        if model.backbone.stage_of(t) == 0
    ]
    name = next(t for t in stem if t.endswith(what))
    tensor = dict([*network.named_parameters(), *network.named_buffers()])[name]
    config = LearnConfig(epochs=2, batch_size=12, workers=1, patience=0)
    seen: list[dict] = []

    def meddle(line: dict) -> None:
        if not seen:
            nudged(tensor)
        seen.append(line)

    assert fit(model, the_plan, data, config, TrunkCache()).moved == ()
    before = freeze.hash_frozen_tensors(model.backbone, the_plan.phases)
    result = fit(model, the_plan, data, config, TrunkCache(), on_epoch=meddle)
    assert set(result.moved) == {name}
    assert freeze.find_changed_tensors(before, freeze.hash_frozen_tensors(model.backbone, the_plan.phases)) == (name,)


def test_what_moves_in_the_phase_in_which_it_is_frozen_is_seen(taught: Callable, data: TrainingData) -> None:
    """Later phases may move it; the first may not, and a digest at the end alone would not tell."""
    model, the_plan = taught("lp_ft")
    bias = dict(model.backbone.network.named_parameters())["layer4.0.bn1.bias"]

    def meddle(line: dict) -> None:
        if line["phase"] == "probe":
            nudged(bias)

    config = LearnConfig(epochs=2, batch_size=12, workers=1)
    assert fit(model, the_plan, data, config, TrunkCache()).moved == ()
    assert "layer4.0.bn1.bias" in fit(model, the_plan, data, config, TrunkCache(), on_epoch=meddle).moved


@pytest.mark.parametrize("optimizer", ["nesterov", "adamw"])
def test_unfreezing_keeps_the_very_same_groups(
    taught: Callable, data: TrainingData, monkeypatch: pytest.MonkeyPatch, optimizer: str
) -> None:
    built, grouped = [], []
    build, set_rates = optimizers.build_optimizer, optimizers.set_rates

    def kept(*args) -> torch.optim.Optimizer:
        built.append(build(*args))
        return built[-1]

    def watched(optimizer: torch.optim.Optimizer, phase: freeze.Phase, lr: float) -> None:
        set_rates(optimizer, phase, lr)
        grouped.append([(group["name"], [id(p) for p in group["params"]]) for group in optimizer.param_groups])

    monkeypatch.setattr(optimizers, "build_optimizer", kept)
    monkeypatch.setattr(optimizers, "set_rates", watched)
    model, the_plan = taught("gradual", backbone_lr=1.0)
    before = tensors(model.backbone.network)
    learned = {id(p): name for name, p in model.named_parameters()}
    config = LearnConfig(optimizer=optimizer, epochs=6, batch_size=12, workers=1, lr=0.01)
    fit(model, the_plan, dataclasses.replace(data, val=data.val[:0]), config, TrunkCache())  # to the last epoch
    assert len(built) == 1
    assert all(groups == grouped[0] for groups in grouped)
    held = [p for _, ids in grouped[0] for p in ids]
    assert len(held) == len(set(held))
    assert set(held) == set(learned) == {id(p) for p in model.parameters()}  # none is dead, none is missing
    after = tensors(model.backbone.network)
    still = [name for name, _ in model.backbone.network.named_parameters() if same(before[name], after[name])]
    assert len(still) < 0.1 * len(before), still
