from dataclasses import replace

import numpy as np
import pytest
import torch

from transfer.config.train import LearnConfig
from transfer.feature_cache import TrunkCache
from transfer.training.warm_start.start import WarmStart


@pytest.mark.parametrize("policy", ["partial:2", "lp_ft:1", "gradual:2", "full"])
def test_a_trained_network_gets_the_old_weights_and_the_last_phase(policy: str, taught) -> None:
    (old, _), (model, plan) = taught(policy, seed=1), taught(policy, seed=2)
    last = WarmStart({"": old}, frozenset(), 0.0).apply("", model, plan, LearnConfig(), 0)
    assert last is not None
    assert last.phases == (replace(plan.phases[-1], share=1.0),)
    for name, tensor in old.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name
    assert model.state_dict().keys() == old.state_dict().keys()
    assert model.heads.layer("object")[0].weight is not old.heads.layer("object")[0].weight


def test_where_a_head_lacks_classes_the_heads_are_fitted_first(taught) -> None:
    (old, _), (model, plan) = taught("partial:2", seed=1, heads=("object",)), taught("partial:2", seed=2)
    last = WarmStart({"": old}, frozenset(), 0.0).apply("", model, plan, LearnConfig(), 0)
    assert last is not None
    probe, phase = last.phases
    assert probe.cut == len(probe.stages)
    assert not any(stage.trained for stage in probe.stages)
    assert phase.stages == plan.phases[-1].stages
    assert phase.heads_rate == max(stage.rate for stage in phase.stages) == 0.1
    assert probe.share == phase.share == 1.0


@pytest.mark.parametrize("policy", ["linear_probe", "head2toe", "stage_probes"])
def test_a_solved_network_stays_as_it_is(policy: str, taught) -> None:
    (old, _), (model, plan) = taught(policy, seed=1), taught(policy, seed=2)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    warm = WarmStart({"": old}, frozenset(), 0.0)
    assert warm.apply("", model, plan, LearnConfig(), 0) is None
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())
    trained = warm.apply("", model, plan, LearnConfig(probe="trained"), 0)
    assert trained is not None
    assert len(trained.phases) == 1


def test_a_network_that_the_old_run_lacks_starts_afresh(taught) -> None:
    (old, _), (model, plan) = taught("full", seed=1), taught("full", seed=2)
    assert WarmStart({"object": old}, frozenset(), 0.0).apply("domain", model, plan, LearnConfig(), 0) is None


def test_the_guard_is_of_the_old_validation_images_with_a_label(images, digests, taught) -> None:
    model = taught()[0]
    values = images.object.copy()
    values[7] = -1
    table = replace(images, targets=images.targets | {"object": replace(images.targets["object"], values=values)})
    warm = WarmStart({"": model}, frozenset(digests[[3, 5, 7, 40]].tolist()), 0.0)
    guard = warm.guard("", model, table, digests, np.array([1, 3, 5, 7]), TrunkCache())
    assert guard is not None
    assert guard.rows.tolist() == [3, 5]
