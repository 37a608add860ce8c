import pytest

from transfer import freeze
from transfer.errors import TransferError
from transfer.freeze import FreezePolicy


def trained(plan: freeze.FreezePlan) -> list[list[int]]:
    """The numbers of the stages that each phase trains."""
    return [[i for i, stage in enumerate(phase.stages) if stage.train != "none"] for phase in plan.phases]


@pytest.mark.parametrize(
    ("text", "stages"),
    [
        ("linear_probe", [[]]),
        ("partial:1", [[4]]),
        ("partial", [[3, 4]]),
        ("full", [[0, 1, 2, 3, 4]]),
        ("lp_ft:2", [[], [3, 4]]),
        ("gradual:2", [[], [4], [3, 4]]),
        ("gradual:bottom_up", [list(range(n)) for n in range(6)]),
        ("norm_only", [[0, 1, 2, 3, 4]]),
        ("surgical:first", [[0]]),
        ("surgical:middle", [[1, 2]]),
        ("surgical:last", [[3, 4]]),
        ("head2toe:20", [[]]),
        ("stage_probes", [[]]),
        ("scratch", [[0, 1, 2, 3, 4]]),
    ],
)
def test_each_policy_trains_its_stages_in_each_phase(small, text, stages) -> None:
    policy, backbone = FreezePolicy.parse(text), small()
    assert len(backbone.stages) == 5
    backbone = freeze.reshape_backbone(backbone, policy)
    assert trained(freeze.plan(policy, backbone)) == stages
    assert policy.trains_backbone == any(stages)
    assert policy.single_phase == (len(stages) == 1)


def test_rates_fall_from_the_top_stage_down(small) -> None:
    (phase,) = freeze.plan("full", small(), backbone_lr=0.1, layer_decay=0.5).phases
    assert [stage.rate for stage in phase.stages] == [pytest.approx(0.1 * 0.5**i) for i in (4, 3, 2, 1, 0)]


def test_too_many_stages_are_refused(small) -> None:
    with pytest.raises(TransferError, match="5 stages"):
        freeze.plan("partial:9", small())


@pytest.mark.parametrize(
    ("phases", "single", "message"),
    [
        (lambda build: build("heads"), True, "must return a tuple of phases"),
        (lambda build: (), True, "must return a tuple of phases"),
        (lambda build: (build("a"), build("b", (4,))), False, r"shares of its phases \(1, 1\) must sum to 1"),
        (lambda build: (build("a", share=0.5), build("b", (4,), share=0.5)), True, "set single_phase = False"),
    ],
)
def test_phases_of_a_plugin_are_checked(small, phases, single, message) -> None:
    class Mine(FreezePolicy):
        name = "mine"
        summary = "a policy of a plugin"
        single_phase = single

        def phases(self, backbone, build):
            return phases(build)

    with pytest.raises(TransferError, match=message):
        freeze.plan(Mine(), small())
