"""What can be had under which plan; and that, whatever is chosen, laws 1 and 7 hold in the loop."""

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from transfer.config.train import HeadConfig, LearnConfig, RegulariseConfig
from transfer.errors import TransferError
from transfer.feature_cache import TrunkCache
from transfer.runs import checkpoint
from transfer.training.epoch import TrainingData
from transfer.training.fit import fit
from transfer.training.penalties import build
from transfer.training.penalties.pretrained import PretrainedCopy

QUICK = LearnConfig(probe="trained", epochs=2, batch_size=12, workers=1, lr=1e-3)
OPTIONS = dict.fromkeys(RegulariseConfig.__dataclass_fields__, 0.1)


def with_classifier(model: Any) -> Any:
    torch.manual_seed(5)
    model.backbone._original = (nn.Linear(model.backbone.width, 6),)
    return model


def refused(model: Any, plan: Any, data: TrainingData, learn: LearnConfig) -> str:
    with pytest.raises(TransferError) as error:
        fit(model, plan, data, learn, TrunkCache())
    return str(error.value)


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("policy", ["partial:1", "full"])
def test_each_penalty_changes_training_reproducibly_and_nothing_frozen(
    taught: Callable[..., Any], data: TrainingData, name: str, policy: str
) -> None:
    if name == "cutmix" and policy != "full":
        pytest.skip("wants pixels")
    runs = []
    for options in ({name: 0.1}, {name: 0.1}, {}):
        model, plan = taught(policy)
        learn = replace(QUICK, regularise=RegulariseConfig(**options))
        result = fit(with_classifier(model), plan, data, learn, TrunkCache(), seed=3)
        assert result.moved == ()
        assert not result.stopped
        runs.append({key: tensor.clone() for key, tensor in model.state_dict().items()})
    assert all(torch.equal(runs[0][key], runs[1][key]) for key in runs[0])
    assert not all(torch.equal(runs[0][key], runs[2][key]) for key in runs[0])


@pytest.mark.parametrize("policy", ["lp_ft:1", "gradual:2"])
def test_all_penalties_over_several_phases(taught: Callable[..., Any], data: TrainingData, policy: str) -> None:
    """What holds on to the start does so from the first phase on, though the cut moves down."""
    model, plan = taught(policy)
    options = {name: value for name, value in OPTIONS.items() if name != "cutmix"}
    learn = replace(QUICK, epochs=3, loss="hinge", regularise=RegulariseConfig(**options))
    result = fit(with_classifier(model), plan, data, learn, TrunkCache())
    assert result.moved == ()
    assert not result.stopped
    assert len(result.epochs) >= 3


def test_the_penalties_of_each_phase(taught: Callable[..., Any], data: TrainingData) -> None:
    model, plan = taught("lp_ft:1")
    learn = replace(QUICK, regularise=RegulariseConfig(l1=0.1, l2_sp=0.1, bss=0.1, mixup=0.1))
    assert build.needs_pretrained_copy(learn)
    assert not build.needs_pretrained_copy(replace(learn, regularise=RegulariseConfig(bss=1.0, l2=1.0, mixup=1.0)))
    kinds = []
    start = PretrainedCopy(model, data.train, {})
    for phase in plan.phases:
        model.freeze(phase)
        feed = TrunkCache().feed(model, data.table.paths, data.digests, batch_size=12)
        kinds.append([type(p).__name__ for p in build.build_penalties(model, phase, learn, feed, start)])
    assert kinds == [["ElasticNet"], ["ElasticNet", "BSS", "L2SP"]]


@pytest.mark.parametrize("name", ["l2_sp", "delta", "bss", "co_tuning", "stochastic_depth"])
def test_a_frozen_backbone_has_no_use_for_some(taught: Callable[..., Any], data: TrainingData, name: str) -> None:
    learn = replace(QUICK, regularise=RegulariseConfig(**{name: 0.1}))
    says = refused(*taught("linear_probe"), data, learn)
    assert says.startswith(f"--{name.replace('_', '-')}: the whole backbone stays frozen under linear_probe; choose a")


def test_from_scratch_there_are_no_pretrained_weights(taught: Callable[..., Any], data: TrainingData) -> None:
    learn = replace(QUICK, regularise=RegulariseConfig(l2_sp=0.1, delta=0.1, bss=0.1))
    says = refused(*taught("scratch"), data, learn)
    assert says == "--l2-sp, --delta: there are no pretrained weights to stay near under scratch"


def test_a_truncated_network_has_no_original_classifier(taught: Callable[..., Any], data: TrainingData) -> None:
    learn = replace(QUICK, regularise=RegulariseConfig(co_tuning=0.1))
    says = refused(*taught("truncate:1+partial:1"), data, learn)
    assert says == "--co-tuning: the original classifier needs the stages that truncate:1+partial:1 drops"


def test_selected_features_are_solved_or_refused(taught: Callable[..., Any], data: TrainingData) -> None:
    assert refused(*taught("head2toe"), data, QUICK).startswith("policy head2toe is solved, never trained: it takes")


def test_cutmix_needs_images(taught: Callable[..., Any], data: TrainingData) -> None:
    learn = replace(QUICK, regularise=RegulariseConfig(cutmix=1.0))
    says = refused(*taught("partial:1"), data, learn)
    assert says == (
        "--cutmix mixes images, but the input of phase partial is the output of the frozen layers below layer4; choose "
        "--policy full, or --mixup"
    )
    assert "below the heads" in refused(*taught("linear_probe"), data, learn)


@pytest.mark.parametrize(
    ("options", "loss", "flags"),
    [({"l1": 0.1, "mixup": 0.2}, "cross_entropy", "--l1, --mixup"), ({}, "hinge", "--loss hinge")],
)
def test_a_solved_probe_refuses_options_without_effect(
    taught: Callable[..., Any], data: TrainingData, options: dict[str, float], loss: Any, flags: str
) -> None:
    learn = replace(QUICK, probe="solved", loss=loss, regularise=RegulariseConfig(**options))
    assert refused(*taught(), data, learn).startswith(f"{flags}: no effect on a solved probe")


def test_a_solved_probe_refuses_dropconnect(taught: Callable[..., Any], data: TrainingData) -> None:
    model, plan = taught()
    specs = list(model.heads.specs.values())
    model.heads = checkpoint.build_heads(specs, model.backbone.width, HeadConfig(drop_connect=0.3))
    assert refused(model, plan, data, replace(QUICK, probe="solved")).startswith("--drop-connect: no effect")
    assert not fit(model, plan, data, QUICK, TrunkCache()).stopped


def test_a_solved_phase_logs_the_options_it_ignores(
    taught: Callable[..., Any], data: TrainingData, caplog: pytest.LogCaptureFixture
) -> None:
    model, plan = taught("lp_ft:1")
    learn = replace(QUICK, probe="solved", regularise=RegulariseConfig(l2=0.1))
    with caplog.at_level(logging.INFO, "transfer"):
        fit(model, plan, data, learn, TrunkCache())
    assert [r.message for r in caplog.records if "solved" in r.message] == ["phase probe is solved, which ignores --l2"]


def test_a_network_without_blocks_to_skip_is_refused(taught: Callable[..., Any], data: TrainingData) -> None:
    learn = replace(QUICK, regularise=RegulariseConfig(stochastic_depth=0.1))
    says = refused(*taught("norm_only"), data, learn)
    assert says.startswith("--stochastic-depth: test_resnet has no residual block that can be")
