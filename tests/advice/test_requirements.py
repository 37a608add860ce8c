import dataclasses

import pytest

from transfer.advice import requirements
from transfer.advice.requirements import NetworkLayout, RatedPolicy, RunRequirements
from transfer.backbones import load


def test_requirements_have_defaults_and_are_frozen():
    requirements = RunRequirements(200)
    assert (requirements.solves_heads, requirements.fine_tuning_options) == (True, ())
    assert (requirements.networks, requirements.uncached_epochs) == (1, 0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        requirements.frozen_passes = 3


@pytest.mark.parametrize(("accuracy", "sd", "expected"), [(0.9, 0.01, (0.8804, 0.9196)), (0.99, 0.1, (0.794, 1.0))])
def test_the_interval_stays_within_0_and_1(accuracy, sd, expected):
    assert RatedPolicy("full", accuracy, sd, False, 10, 2, 6, 1.0).interval == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(("sds", "expected"), [(0.0, 0.0075), (1.0, 0.013), (2.0, 0.026)])
def test_a_lead_must_be_worth_the_time_and_exceed_its_uncertainty(monkeypatch, sds, expected):
    monkeypatch.setattr(requirements, "MIN_LEAD_SDS", sds)
    rated = [
        RatedPolicy(name, 0.9, 0.5, False, 0, 6, 0, 1.0, sd) for name, sd in (("lp_ft", 0.012), ("head2toe", 0.005))
    ]
    assert requirements.compute_required_lead(*rated) == pytest.approx(expected)


@pytest.mark.parametrize(("name", "normalised"), [("resnet10t", True), ("torchvision:squeezenet1_1", False)])
def test_the_layout_of_a_backbone(name, normalised):
    backbone = load(name, random_init=True, image_size=64)
    found = NetworkLayout.from_backbone(backbone)
    assert found.normalised is normalised
    assert len(found.parameters) == len(found.layers) == len(backbone.stages)
    held = [
        [p for path in stage.modules for p in backbone.network.get_submodule(path).parameters()]
        for stage in backbone.stages
    ]
    assert found.parameters == tuple(sum(p.numel() for p in stage) for stage in held)
    assert found.layers == tuple(sum(p.ndim > 1 for p in stage) for stage in held)
