"""Phases, built stage by stage; expected values are computed from the network here."""

import pytest
from torch import nn

from transfer.freeze.phase import PhaseBuilder


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.fixture
def backbone(small):
    return small("test_resnet")  # five stages


def test_a_trained_stage_learns_more_slowly_the_deeper_it_lies(backbone) -> None:
    phase = PhaseBuilder(backbone, 0.2, 0.5, "frozen", from_scratch=False)("top", (2, 4), share=0.25, heads_rate=0.3)
    assert [stage.train for stage in phase.stages] == ["none", "none", "all", "none", "all"]
    assert [stage.rate for stage in phase.stages] == [0, 0, 0.2 * 0.5**2, 0, 0.2]
    assert (phase.name, phase.share, phase.heads_rate, phase.cut) == ("top", 0.25, 0.3, 2)
    assert [stage.trained for stage in phase.stages] == [
        stage.parameters if i in (2, 4) else 0 for i, stage in enumerate(phase.stages)
    ]
    assert sum(stage.parameters for stage in phase.stages) == count(backbone.network)


def test_from_scratch_all_rates_are_those_of_the_heads(backbone) -> None:
    phase = PhaseBuilder(backbone, 0.2, 0.5, "learning", from_scratch=True)("all", range(5))
    assert {(stage.rate, stage.statistics, stage.frozen) for stage in phase.stages} == {(1.0, "learning", False)}
    assert phase.cut == 0


def test_norms_only_trains_scale_and_shift(backbone) -> None:
    phase = PhaseBuilder(backbone, 0.2, 1.0, "frozen", from_scratch=False)("norms", range(5), norms_only=True)
    norms = sum(count(module) for module in backbone.network.modules() if isinstance(module, nn.BatchNorm2d))
    assert sum(stage.trained for stage in phase.stages) == norms > 0
    assert {stage.train for stage in phase.stages} == {"norm"}


def test_without_trained_stages_the_whole_backbone_is_the_trunk(backbone) -> None:
    phase = PhaseBuilder(backbone, 0.2, 0.5, "learning", from_scratch=False)("probe")
    assert phase.cut == len(phase.stages) == 5
    assert all(stage.frozen for stage in phase.stages)


@pytest.mark.parametrize("stage", [-1, 5])
def test_a_stage_that_does_not_exist_is_named(backbone, stage: int) -> None:
    build = PhaseBuilder(backbone, 0.2, 0.5, "frozen", from_scratch=False)
    with pytest.raises(ValueError, match=f"the backbone has 5 stages, and no stage {stage}"):
        build("top", (1, stage))
