"""Every option of `train` and `adapt`: where it has no effect, and what is said of it there.

The tables below name each option once. What they claim is checked on the tiny set: with all options of a row set, a run
ends with the same weights, bit for bit, as without them.
"""

import re
from dataclasses import replace
from typing import Any

import pytest

from transfer.config.adapt import AdaptConfig
from transfer.config.serialise import iter_settings
from transfer.config.train import DataConfig, LearnConfig, RegulariseConfig, RunConfig, TrainConfig
from transfer.config.unused import (
    AdaptationFacts,
    RunFacts,
    find_unused_adaptation_options,
    find_unused_options,
    format_unused_options,
    reset_options,
)

SOLVED, FROZEN = "the heads are solved by L-BFGS, not trained", "the whole backbone stays frozen"
TRAINED = {"probe": "trained"}
# Settings of the run; options without effect in it; the reason that is said.
TRAIN_TABLE: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({}, {"lr": 0.5, "epochs": 5, "optimizer": "sgd", "batch_size": 4, "weight_decay": 0.3}, SOLVED),
    ({}, {"momentum": 0.1, "clip": 0.2, "accumulate": 2, "schedule": "step", "warmup": 0.5, "cycles": 2}, SOLVED),
    ({}, {"average": "swa", "patience": 1, "minutes": 2.0, "precision": "bfloat16", "interference": True}, SOLVED),
    ({}, {"average": "ema", "ema_decay": 0.5, "dropout": 0.3, "head_init": "he"}, SOLVED),
    ({}, {"loss_weights": ("object:1", "domain:0.5")}, "each head is solved alone"),
    ({}, {"balance": "sampling"}, f"{SOLVED}; --balance loss weights their images"),
    ({}, {"backbone_lr": 0.7, "layer_decay": 0.4, "statistics": "learning"}, FROZEN),
    (TRAINED, {"backbone_lr": 0.7, "layer_decay": 0.4, "statistics": "learning", "interference": True}, FROZEN),
    (TRAINED, {"cut_precision": "float32"}, "no phase has frozen stages below trained ones"),
    (TRAINED, {"ema_decay": 0.5}, "there is no moving average without --average ema"),
    (TRAINED, {"average": "wise_ft"}, "the policy has no phase before fine-tuning, as lp_ft has"),
    (TRAINED, {"momentum": 0.1}, "--optimizer adamw takes no momentum"),
    (TRAINED | {"optimizer": "adam"}, {"momentum": 0.1}, "--optimizer adam takes no momentum"),
    (TRAINED | {"optimizer": "lion"}, {"momentum": 0.1}, "--optimizer lion takes no momentum"),
    (TRAINED | {"loss": "hinge"}, {"label_smoothing": 0.3}, "the hinge loss has no label smoothing"),
    (TRAINED, {"activation": "tanh"}, "linear heads have no hidden layer"),
    (TRAINED | {"dropout": 0.0}, {"dropout_kind": "vanilla"}, "the heads have no dropout"),
    (TRAINED | {"cycles": 2}, {"patience": 1, "minutes": 2.0}, "a schedule of several cycles is never stopped early"),
    (TRAINED | {"val": 0.0}, {"patience": 1, "refit": False}, "there are no validation images"),
    (TRAINED | {"val": 0.0}, {"calibrate": False}, "there are no validation images"),
    ({"test": 0.0}, {"test_crops": 10, "test_sizes": (40,)}, "there are no test images"),
    (
        TRAINED | {"optimizer": "lbfgs", "batch_size": 0},
        {"lr": 0.5, "schedule": "step", "warmup": 0.5, "clip": 0.2},
        "--optimizer lbfgs chooses its steps by line search",
    ),
    (
        {"policy": "partial:1", "optimizer": "lbfgs", "batch_size": 0},
        {"backbone_lr": 0.7, "layer_decay": 0.3},
        "--optimizer lbfgs chooses its steps by line search",
    ),
    ({"policy": "partial:1"}, {"layer_decay": 0.4}, "a single stage is trained"),
    (
        {"policy": "partial:1"},
        {"probe": "trained"},
        "no phase has linear heads on features of a frozen backbone",
    ),
    ({"hidden": (4,)}, {"probe": "trained"}, "no phase has linear heads on features of a frozen backbone"),
    ({"policy": "full"}, {"cut_precision": "float32"}, "no phase has frozen stages below trained ones"),
    (
        {"policy": "scratch"},
        {"backbone_lr": 0.7, "layer_decay": 0.4},
        "policy scratch trains all stages at --lr",
    ),
    ({"policy": "scratch"}, {"random_init": True}, "policy scratch starts from random weights anyway"),
    (
        {"policy": "scratch", "shots": 3},
        {"unlabelled": "rest"},
        "random weights have no pretrained features to propagate labels on",
    ),
    (
        {"random_init": True, "shots": 3},
        {"unlabelled": "rest"},
        "random weights have no pretrained features to propagate labels on",
    ),
    ({}, {"unlabelled": "rest"}, "every training image has a label"),
    ({"policy": "lp_ft:1"}, {"head_init": "he"}, "the heads start as phase probe solves them"),
    (
        {"policy": "partial:1", "heads": "separate"},
        {"interference": True},
        "each network has a single head",
    ),
    ({}, {"checkpoint_minutes": 3.0, "report": False, "overwrite": True}, "there is no run folder"),
    ({"cache": False}, {"cache_gb": 3.0}, "there is no disk cache with --no-cache"),
]
# Options that the tiny set above cannot show, with facts that settle them.
NOT_RUN = {"data_root", "test", "val", "split_seed", "heads", "seed"}
REFUSED = {
    **dict.fromkeys(RegulariseConfig.__dataclass_fields__, "refused on a frozen backbone: test_build.py"),
    "drop_connect": "refused on solved heads: test_build.py",
    "loss": "refused on solved heads: test_build.py",
    "views": "refused without --augment: test_train.py",
    "resume": "refused without --out: test_shared.py",
    "tensorboard": "refused without --out: test_shared.py",
    "weights": "refused with --random-init and policy scratch: test_load.py",
    "policy": "refused by compare, search and advise: test_compare.py, test_advise.py",
    "plugin": "loads code; a plugin that cannot be loaded is refused",
}
ALWAYS = {"data", "on_bad_image", "targets", "shots", "keep_near_duplicates_together", "backbone", "image_size", "crop"}
ALWAYS |= {"labels", "corrections", "hidden", "augment", "device", "engine", "workers", "cache", "out", "seeds"}


def settings_of(config: Any) -> set[str]:
    return {name for name, _, _ in iter_settings(config)}


def test_every_option_of_train_is_in_one_of_the_tables() -> None:
    shown = {name for _, options, _ in TRAIN_TABLE for name in options}
    assert shown | NOT_RUN | REFUSED.keys() | ALWAYS == settings_of(TrainConfig())
    assert not shown & (REFUSED.keys() | ALWAYS)
    assert not ALWAYS & (REFUSED.keys() | NOT_RUN)


@pytest.fixture(scope="module")
def plain_runs() -> dict[str, Any]:
    """Weights of the runs without the options, by their settings: several rows share one."""
    return {}


@pytest.mark.parametrize(("run", "options", "reason"), TRAIN_TABLE)
def test_what_is_said_to_have_no_effect_has_none(
    config: Any,
    caplog: pytest.LogCaptureFixture,
    plain_runs: dict[str, Any],
    run: dict[str, Any],
    options: dict[str, Any],
    reason: str,
) -> None:
    import torch

    from transfer.training.train import train

    def fitted(settings: dict[str, Any]) -> dict[str, Any]:
        models = train(set_options(config(), {"epochs": 3, "batch_size": 16} | settings)).models
        return {f"{key} {name}": t for key, model in models.items() for name, t in model.state_dict().items()}

    if f"{run}" not in plain_runs:
        plain_runs[f"{run}"] = fitted(run)
    expected = plain_runs[f"{run}"]
    caplog.clear()
    caplog.set_level("INFO")
    found = fitted(run | options)
    assert expected.keys() == found.keys()
    if "batch_size" in options:  # another number of images at a time rounds features differently
        assert all(torch.allclose(expected[name], found[name], atol=1e-3) for name in expected)
    else:
        assert all(torch.equal(expected[name], found[name]) for name in expected)
    lines = [record.getMessage() for record in caplog.records if "no effect" in record.getMessage()]
    said = {line.partition(": no effect, because ")[2]: line for line in lines}
    for name in options:
        assert re.search(rf"--{name.replace('_', '-')}\b(?!-)", said.get(reason, "")), (name, lines)


@pytest.mark.parametrize(
    ("run", "options"),
    [
        (TRAINED, {"lr": 0.5}),
        (TRAINED, {"weight_decay": 5.0}),
        (TRAINED | {"optimizer": "sgd"}, {"momentum": 0.1}),
        (TRAINED | {"optimizer": "sgdw"}, {"momentum": 0.1}),
        (TRAINED, {"label_smoothing": 0.3}),
        (TRAINED | {"average": "ema"}, {"ema_decay": 0.1}),
        (TRAINED, {"balance": "sampling"}),
        (TRAINED, {"head_init": "he"}),
        ({}, {"label_smoothing": 0.3}),
        ({}, {"balance": "loss"}),
        ({}, {"probe": "trained"}),
        ({"policy": "lp_ft:1"}, {"probe": "trained"}),
        ({"policy": "lp_ft:1"}, {"lr": 0.5}),
        ({"policy": "full"}, {"layer_decay": 0.3}),
        ({"policy": "partial:2"}, {"statistics": "learning"}),
        ({"policy": "partial:2"}, {"cut_precision": "float32"}),
        ({"policy": "partial:1", "cycles": 2}, {"schedule": "step"}),
    ],
)
def test_what_has_an_effect_is_not_said_to_have_none(
    config: Any, caplog: pytest.LogCaptureFixture, run: dict[str, Any], options: dict[str, Any]
) -> None:
    import torch

    from transfer.training.train import train

    first = train(set_options(config(), {"batch_size": 16} | run)).models[""].state_dict()
    caplog.set_level("INFO")
    second = train(set_options(config(), {"batch_size": 16} | run | options)).models[""].state_dict()
    (name,) = options
    assert name == "balance" or not all(torch.equal(first[key], second[key]) for key in first)
    lines = [record.getMessage() for record in caplog.records if "no effect" in record.getMessage()]
    assert not any(f"--{name.replace('_', '-')}" in line for line in lines)


FACTS = RunFacts(
    phases=("partial",),
    solved=(False,),
    solvable=False,
    trained_stages=2,
    batch_norms=5,
    frozen_below=True,
    from_scratch=False,
    heads=2,
    smoothed=True,
    labels=False,
    has_momentum=True,
    dropout=0.5,
    val=10,
    test=10,
)


@pytest.mark.parametrize(
    ("changes", "facts", "expected"),
    [
        ({"data": DataConfig(test=0.3)}, {"given_splits": ("test",)}, {"test": "the test images that come with"}),
        ({"data": DataConfig(val=0.3)}, {"given_splits": ("val",)}, {"val": "the val images that come with the set"}),
        (
            {"data": DataConfig(split_seed=3)},
            {"given_splits": ("test", "val")},
            {"split_seed": "the split that comes with the set is used"},
        ),
        ({"data": DataConfig(split_seed=3)}, {"given_splits": ("test",)}, {}),
        ({"data": DataConfig("digits", data_root="x")}, {}, {"data_root": "digits are drawn, not read"}),
        ({"data": DataConfig("/", data_root="x")}, {}, {"data_root": "/ is found without it"}),
        ({"data": DataConfig("flowers", data_root="x")}, {}, {}),
        ({"run": RunConfig(seed=3, seeds=(0, 1))}, {}, {"seed": "--seeds names the seeds"}),
        ({"learn": LearnConfig(label_smoothing=0.3)}, {"smoothed": False}, {"label_smoothing": "no head has a loss"}),
        ({"learn": LearnConfig(loss="asymmetric")}, {}, {"loss": "no head has several labels an image"}),
        ({"learn": LearnConfig(loss="asymmetric")}, {"labels": True}, {}),
        ({"learn": LearnConfig(interference=True)}, {"heads": 1}, {"interference": "there is a single head"}),
        ({}, {}, {}),
    ],
)
def test_facts_of_the_data(changes: dict[str, Any], facts: dict[str, Any], expected: dict[str, str]) -> None:
    found = find_unused_options(replace(TrainConfig(), **changes), replace(FACTS, **facts))
    assert found.keys() == expected.keys()
    assert all(found[name].startswith(reason) for name, reason in expected.items())


def test_joint_heads_of_a_set_with_one_target() -> None:
    config = TrainConfig()
    config = replace(config, heads=replace(config.heads, heads="joint", loss_weights=("object:2",)))
    found = find_unused_options(config, replace(FACTS, heads=1))
    assert format_unused_options(found) == ["--heads, --loss-weights: no effect, because there is a single head"]
    assert not find_unused_options(config, FACTS)


def test_unused_options_are_reset_and_the_others_are_not() -> None:
    given = TrainConfig(learn=LearnConfig(lr=0.1, probe="trained"), run=RunConfig(seed=4))
    assert reset_options(given, {"lr": "", "seed": ""}) == TrainConfig(learn=LearnConfig(probe="trained"))
    usual = TrainConfig(learn=LearnConfig(lr=7.0))
    assert reset_options(given, {"lr": ""}, usual).learn.lr == 7.0


def test_only_options_that_differ_from_the_default_are_given() -> None:
    usual = TrainConfig(learn=LearnConfig(lr=0.5))
    solved = replace(FACTS, solved=(True,), solvable=True, trained_stages=0)
    assert "lr" not in find_unused_options(usual, solved, usual)
    assert list(find_unused_options(usual, solved)) == ["lr"]


NO_STEPS, STILL = AdaptationFacts(0, False, False), AdaptationFacts(0, True, True)
TAIL = AdaptationFacts(2, True, True)
ADAPT_TABLE: list[tuple[AdaptationFacts, dict[str, Any], str]] = [
    (NO_STEPS, {"epochs": 3, "steps": 7, "lr": 0.5, "batch_size": 4, "weight_decay": 0.5}, "coral takes no optimizer"),
    (NO_STEPS, {"momentum": 0.5, "clip": 1.0, "bottleneck": 4}, "coral takes no optimizer steps here"),
    (STILL, {"augment": "flip", "backbone_lr": 0.5, "layer_decay": 0.3, "views": 2}, FROZEN),
    (STILL, {"cut_precision": "float32"}, FROZEN),
    (replace(TAIL, trained_stages=1), {"layer_decay": 0.3}, "a single stage is trained"),
    (NO_STEPS, {"rule": "im"}, "there is a single candidate"),
    (replace(NO_STEPS, estimates=False), {"calibrate": False}, "the accuracy of coral on the target is not estimated"),
    (STILL, {"test": 0.3}, "--protocol transductive holds no target out"),
    (STILL, {"data_root": "x"}, "digits are drawn, not read"),
    (STILL, {"checkpoint_minutes": 3.0, "report": False, "overwrite": True}, "there is no run folder"),
    (STILL, {"seeds": (0, 1), "seed": 2}, "--seeds names the seeds"),
]
ADAPT_ALWAYS = {
    "data",
    "val",
    "on_bad_image",
    "source",
    "target",
    "protocol",
    "target_labels",
    "method",
    "policy",
    "backbone",
}
ADAPT_ALWAYS |= {"labels"} | {
    "target_images",
    "image_size",
    "crop",
    "device",
    "engine",
    "workers",
    "cache",
    "out",
    "cache_gb",
    "random_init",
}
ADAPT_ALWAYS |= {"labels", "corrections", "backbones"}
ADAPT_REFUSED = {"weight", "map", "resume", "tensorboard", "weights", "plugin"}  # test_adapt_refused.py, test_shared.py


def test_every_option_of_adapt_is_in_one_of_the_tables() -> None:
    shown = {name for _, options, _ in ADAPT_TABLE for name in options}
    assert shown | ADAPT_ALWAYS | ADAPT_REFUSED == settings_of(AdaptConfig())


@pytest.mark.parametrize(("facts", "options", "reason"), ADAPT_TABLE)
def test_adaptation_says_what_it_cannot_use(facts: AdaptationFacts, options: dict[str, Any], reason: str) -> None:
    config = set_options(AdaptConfig(), {"method": ("coral",)} | options)
    found = find_unused_adaptation_options(config, facts)
    assert {name for name in options if name != "seeds"} <= found.keys()
    assert all(found[name].startswith(reason) for name in options if name != "seeds")
    usable = set_options(AdaptConfig(), {"protocol": "inductive", "data": "office31", "out": "x"} | options)
    kept = find_unused_adaptation_options(usable, TAIL)
    assert kept.keys() <= {"seed"}


def set_options(config: Any, options: dict[str, Any]) -> Any:
    changed = {}
    for name in config.__dataclass_fields__:
        value = getattr(config, name)
        if hasattr(value, "__dataclass_fields__"):
            changed[name] = set_options(value, options)
        elif name in options:
            changed[name] = options[name]
    return replace(config, **changed)
