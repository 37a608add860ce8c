from dataclasses import replace

import pytest

from transfer import freeze
from transfer.config.train import LearnConfig
from transfer.freeze import FreezePolicy
from transfer.heads import HeadSpec
from transfer.heads.heads import Heads
from transfer.probes.choose import can_solve_heads, choose_solver, is_phase_solved
from transfer.probes.head2toe import solve_head2toe
from transfer.probes.linear import solve_linear_probe
from transfer.probes.stage_probes import solve_stage_probes

SOLVED = LearnConfig(augment="none", probe="solved")


@pytest.mark.parametrize(
    ("heads", "changes", "views", "answer"),
    [
        ({}, {}, 0, True),
        ({"dropout": 0.5}, {}, 0, True),
        ({}, {"probe": "trained"}, 0, False),
        ({}, {"augment": "flip"}, 0, False),
        ({}, {"augment": "flip"}, 2, True),
        ({"hidden": (4,)}, {}, 0, False),
        ({"drop_connect": 0.1}, {}, 0, True),  # refused by check_penalties: it would change nothing
        ({"dropout": 0.5, "dropout_kind": "vanilla"}, {}, 0, False),
    ],
)
def test_linear_heads_on_features_that_never_change(heads, changes, views, answer):
    made = Heads([HeadSpec("object", classes=("a", "b"))], 3, **heads)
    assert can_solve_heads(made, replace(SOLVED, **changes), views) is answer


@pytest.mark.parametrize(
    "policy", ["linear_probe", "lp_ft", "partial:1", "full", "truncate:1", "head2toe", "stage_probes"]
)
def test_a_phase_is_solved_where_all_stages_are_frozen(taught, policy):
    model, plan = taught(policy)
    found = [is_phase_solved(model, phase, SOLVED, 0) for phase in plan.phases]
    assert found == [not any(stage.trained for stage in phase.stages) for phase in plan.phases]
    assert not any(is_phase_solved(model, phase, replace(SOLVED, probe="trained"), 0) for phase in plan.phases)


@pytest.mark.parametrize(
    ("policy", "solves"),
    [
        ("linear_probe", solve_linear_probe),
        ("truncate:1", solve_linear_probe),
        ("head2toe", solve_head2toe),
        ("head2toe:5", solve_head2toe),
        ("stage_probes", solve_stage_probes),
    ],
)
def test_the_solver_of_a_policy(small, policy, solves):
    backbone = freeze.reshape_backbone(small("test_resnet"), FreezePolicy.parse(policy))
    (phase,) = freeze.plan(policy, backbone).phases
    found = choose_solver(backbone, phase)
    assert getattr(found, "func", found) is solves
    given = getattr(found, "keywords", {})
    assert given.get("percents") == (phase.percents or None)
    assert given.get("stages") == ([stage.name for stage in backbone.stages] if phase.by_stage else None)
    assert ("blocks" in given) == (solves is not solve_linear_probe)
