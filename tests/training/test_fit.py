from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from fits import ABLE, LEARN, QUICK, measured
from model_states import changed_names, copy_state
from torch import Tensor

from transfer.config.train import LearnConfig
from transfer.data.table import ImageTable
from transfer.errors import TransferError
from transfer.feature_cache import TrunkCache
from transfer.model import TransferModel
from transfer.runtime.time_limit import TimeLimit
from transfer.training import fit as fit_module
from transfer.training.epoch import TrainingData
from transfer.training.fit import fit


def scripted(monkeypatch: pytest.MonkeyPatch, scores: list[float]) -> None:
    """Let the validation score of every head be the next of `scores`."""
    script = iter(scores)
    monkeypatch.setattr(fit_module, "main_scores", lambda report, specs: dict.fromkeys(specs, next(script)))


@pytest.mark.parametrize("policy", ["linear_probe", "partial:2", "norm_only", "lp_ft"])
@pytest.mark.parametrize("compose", ["dual", "joint"])
def test_it_learns(
    taught: Callable[..., Any], data: TrainingData, images: ImageTable, policy: str, compose: str
) -> None:
    """One object in three and one domain in two would be chance."""
    model, plan = taught(policy, ABLE, compose=compose)
    result = fit(model, plan, data, LEARN, TrunkCache())
    assert not result.stopped
    assert not result.moved
    losses = [line["loss"] for line in result.epochs]
    assert losses[-1] < 0.5 * max(losses)
    rest = np.setdiff1d(np.arange(len(images)), np.concatenate([data.train, data.val]))
    accuracy = measured(model, data, rest)[0]
    assert accuracy["object"] >= 0.8
    assert accuracy["domain"] >= 0.8


def test_it_does_not_learn_what_is_not_there(taught: Callable[..., Any], data: TrainingData) -> None:
    """With labels at random, what it gets right on other images is chance: nothing leaks."""
    rng = np.random.default_rng(0)
    mixed = {name: replace(t, values=rng.permutation(t.values)) for name, t in data.table.targets.items()}
    data = replace(data, table=replace(data.table, targets=mixed), val=data.val[:0])
    model, plan = taught()
    fit(model, plan, data, replace(QUICK, epochs=12, lr=0.01), TrunkCache())
    others = np.setdiff1d(np.arange(len(data.table)), data.train)
    assert measured(model, data, others)[0]["object"] < 0.7


def test_a_line_per_epoch(taught: Callable[..., Any], data: TrainingData) -> None:
    model, plan = taught("lp_ft")
    told: list[dict[str, Any]] = []
    result = fit(model, plan, data, QUICK, TrunkCache(), on_epoch=told.append)
    assert told == result.epochs
    assert [line["epoch"] for line in told] == [1, 2, 3, 4]
    assert [line["phase"] for line in told] == ["probe", "probe", "fine-tune", "fine-tune"]
    for line in told:
        assert set(line) == {"phase", "epoch", "of", "loss", "rate", "train", "val_loss", "val", "seconds"}
        assert set(line["train"]) == set(line["val"]) == {"object", "domain"}
        values = [*line["train"].values(), *line["val"].values()]
        assert all(0 <= value <= 1 and value == round(value, 6) for value in values)  # metrics.jsonl is read by people


def test_the_first_step_costs_what_the_untrained_heads_do(taught: Callable[..., Any], data: TrainingData) -> None:
    """One batch: the epoch's loss and accuracy are those before any step."""
    model, plan = taught()
    model.freeze(plan.phases[0])
    feed = TrunkCache().feed(model, data.table.paths, data.digests, batch_size=64, workers=1)
    activation = torch.cat([a for _, a in feed.batches(data.train)])
    start = copy_state(model)
    centre = activation.mean(0)
    x = (activation - centre) / (activation - centre).square().mean().sqrt()
    cost, right = 0.0, {}
    for name in ("object", "domain"):
        weight, bias = start[f"heads.layers.head_{name}.0.weight"], start[f"heads.layers.head_{name}.0.bias"]
        labels = torch.from_numpy(data.table.targets[name].values[data.train])
        logits = x @ weight.T + bias
        cost += float(-logits.log_softmax(1)[torch.arange(len(labels)), labels].mean())
        right[name] = float((logits.argmax(1) == labels).float().mean())
    result = fit(model, plan, data, replace(QUICK, epochs=1, batch_size=64), TrunkCache())
    assert result.epochs[0]["loss"] == pytest.approx(cost, rel=1e-4)
    assert result.epochs[0]["train"] == pytest.approx(right, abs=1e-6)


@pytest.mark.parametrize("policy", ["linear_probe", "partial:1", "full"])
def test_the_best_epoch_is_restored(taught: Callable[..., Any], data: TrainingData, policy: str) -> None:
    model, plan = taught(policy)
    result = fit(model, plan, data, replace(QUICK, epochs=8, lr=0.3, optimizer="sgd"), TrunkCache())
    value = [(np.mean(list(line["val"].values())), -line["val_loss"]) for line in result.epochs]
    best = value.index(max(value))
    assert result.best == [best + 1]
    accuracy, loss = measured(model, data, data.val)
    assert accuracy == pytest.approx(result.epochs[best]["val"], abs=1e-6)
    assert loss == pytest.approx(result.epochs[best]["val_loss"], rel=1e-5)


@pytest.mark.parametrize("policy", ["linear_probe", "partial:1", "full"])
def test_just_the_weights_of_the_best_epoch(
    taught: Callable[..., Any], data: TrainingData, monkeypatch: pytest.MonkeyPatch, policy: str
) -> None:
    """Weights and statistics, to the bit, also where later epochs went on learning."""
    model, plan = taught(policy)
    scripted(monkeypatch, [0.3, 0.9, 0.4, 0.8])
    after: list[dict[str, Tensor]] = []
    result = fit(model, plan, data, QUICK, TrunkCache(), on_epoch=lambda _: after.append(copy_state(model)))
    assert result.best == [2]
    assert changed_names(copy_state(model), after[1]) == set()
    assert changed_names(copy_state(model), after[3])
    assert not model.training


def test_the_lower_loss_decides_between_equal_scores(
    taught: Callable[..., Any], data: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, plan = taught()
    scripted(monkeypatch, [0.5] * 4)
    result = fit(model, plan, data, QUICK, TrunkCache())
    losses = [line["val_loss"] for line in result.epochs]
    assert result.best == [losses.index(min(losses)) + 1]


def test_the_best_phase_counts(taught: Callable[..., Any], data: TrainingData, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each phase starts from the best of the one before; the best of all is kept."""
    model, plan = taught("lp_ft")
    scripted(monkeypatch, [0.9, 0.2, 0.5, 0.6])
    after: list[dict[str, Tensor]] = []
    result = fit(model, plan, data, QUICK, TrunkCache(), on_epoch=lambda _: after.append(copy_state(model)))
    assert result.best == [1]
    assert changed_names(copy_state(model), after[0]) == set()
    model, plan = taught("lp_ft")
    scripted(monkeypatch, [0.4, 0.2, 0.9, 0.6])
    result = fit(model, plan, data, QUICK, TrunkCache(), on_epoch=lambda _: after.append(copy_state(model)))
    assert result.best == [1, 1]
    assert changed_names(copy_state(model), after[6]) == set()


def test_of_equal_epochs_and_phases_the_first_counts(
    taught: Callable[..., Any], data: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, [0.5] * 4)
    predict = fit_module.predict_rows
    monkeypatch.setattr(fit_module, "predict_rows", lambda *how: (predict(*how)[0], 1.0))
    model, plan = taught("lp_ft")
    assert fit(model, plan, data, QUICK, TrunkCache()).best == [1]


def test_the_next_phase_starts_from_the_best_of_the_one_before(
    taught: Callable[..., Any], data: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, plan = taught("lp_ft")
    scripted(monkeypatch, [0.9, 0.2, 0.1, 0.1])
    after: list[dict[str, Tensor]] = []
    starts: list[dict[str, Tensor]] = []
    freeze_model = TransferModel.freeze
    monkeypatch.setattr(
        TransferModel, "freeze", lambda self, phase: (starts.append(copy_state(self)), freeze_model(self, phase))[1]
    )
    fit(model, plan, data, QUICK, TrunkCache(), on_epoch=lambda _: after.append(copy_state(model)))
    assert changed_names(starts[1], after[0]) == set()


@pytest.mark.parametrize(("patience", "epochs"), [(1, 3), (3, 5), (0, 9), (9, 9)])
def test_patience(
    taught: Callable[..., Any], data: TrainingData, monkeypatch: pytest.MonkeyPatch, patience: int, epochs: int
) -> None:
    model, plan = taught()
    scripted(monkeypatch, [0.5, 0.6, *[0.1] * 7])
    result = fit(model, plan, data, replace(QUICK, epochs=9, patience=patience), TrunkCache())
    assert len(result.epochs) == epochs
    assert result.best == [2]


def test_patience_begins_anew_in_each_phase(
    taught: Callable[..., Any], data: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, plan = taught("lp_ft")
    scripted(monkeypatch, [0.9, 0.1, 0.1, 0.2, 0.3, 0.1, 0.1])
    result = fit(model, plan, data, replace(QUICK, epochs=10, patience=2), TrunkCache())
    assert [line["phase"] for line in result.epochs] == ["probe"] * 3 + ["fine-tune"] * 4


@pytest.mark.parametrize(
    ("policy", "repeat"), [("linear_probe", [3]), ("lp_ft", [2, 1]), ("lp_ft", [3]), ("gradual:1", [1, 4])]
)
def test_repeat_learns_for_just_so_long_and_chooses_nothing(
    taught: Callable[..., Any], data: TrainingData, policy: str, repeat: list[int]
) -> None:
    model, plan = taught(policy)
    after: list[dict[str, Tensor]] = []
    config = replace(QUICK, epochs=20, patience=1, lr=0.5)
    result = fit(
        model, plan, data, config, TrunkCache(), repeat=repeat, on_epoch=lambda _: after.append(copy_state(model))
    )
    names = [phase.name for phase in plan.phases]
    assert [line["phase"] for line in result.epochs] == [names[i] for i, n in enumerate(repeat) for _ in range(n)]
    assert all("val" not in line for line in result.epochs)
    assert result.best == repeat
    assert changed_names(copy_state(model), after[-1]) == set()
    assert not result.moved


def test_a_repeated_run_runs_the_course_of_the_rate_to_its_end(taught: Callable[..., Any], data: TrainingData) -> None:
    model, plan = taught()
    result = fit(model, plan, data, replace(QUICK, epochs=20), TrunkCache(), repeat=[3])
    assert result.epochs[-1]["rate"] == pytest.approx(0.0, abs=1e-9)
    assert result.epochs[0]["rate"] > 0.1 * QUICK.lr


@pytest.mark.parametrize(
    ("policy", "scores", "best", "repeated"),
    [
        ("partial:1", [0.1, 0.9, 0.2, 0.3], [2], [4]),  # patience of two more
        ("partial:1", [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [6], [6]),
        ("gradual:1", [0.1, 0.2, 0.3, 0.4, 0.1, 0.2], [3, 1], [3, 3]),
        ("gradual:1", [0.1, 0.8, 0.1, 0.4, 0.1, 0.2], [2], [3]),  # the second phase made it worse
    ],
)
def test_what_is_repeated_is_as_long_as_it_was_taught(
    taught: Callable[..., Any],
    data: TrainingData,
    policy: str,
    scores: list[float],
    best: list[int],
    repeated: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not up to the best epoch of a phase; but up to the best phase."""
    scripted(monkeypatch, scores)
    model, plan = taught(policy)
    result = fit(model, plan, data, replace(QUICK, epochs=6, patience=2), TrunkCache())
    assert (result.best, result.refit_choices) == (best, repeated)
    assert len(result.epochs) == len(scores)


def test_a_solved_phase_numbers_its_lines_and_has_no_optimizer(taught: Callable[..., Any], data: TrainingData) -> None:
    model, plan = taught()
    result = fit(model, plan, data, replace(QUICK, probe="solved"), TrunkCache())
    assert len(result.epochs) > 2
    assert [line["epoch"] for line in result.epochs] == list(range(1, len(result.epochs) + 1))
    assert result.optimizer_bytes == 0


def test_a_solved_phase_is_repeated_at_its_strengths(taught: Callable[..., Any], data: TrainingData) -> None:
    model, plan = taught("lp_ft:1")
    result = fit(model, plan, data, replace(QUICK, probe="solved", epochs=8), TrunkCache())
    assert result.refit_choices[0] == result.best[0]
    assert set(result.best[0]) == {"object", "domain"}
    assert result.refit_choices[1:] == [4] * (len(result.best) - 1)


def test_repeating_a_whole_run_is_the_run_again(taught: Callable[..., Any], data: TrainingData) -> None:
    """As many epochs on the same rows: the same bits, so a refit differs by its rows alone."""
    runs = []
    for repeat in (None, [4]):
        model, plan = taught("partial:1")
        fit(model, plan, replace(data, val=data.val[:0]), QUICK, TrunkCache(), repeat=repeat)
        runs.append(copy_state(model))
    assert changed_names(*runs) == set()


@pytest.mark.parametrize("policy", ["linear_probe", "partial:1"])
def test_without_validation_rows_the_last_epoch_counts(
    taught: Callable[..., Any], data: TrainingData, policy: str
) -> None:
    model, plan = taught(policy)
    after: list[dict[str, Tensor]] = []
    data = replace(data, val=data.val[:0])
    config = replace(QUICK, patience=1, lr=0.5)
    result = fit(model, plan, data, config, TrunkCache(), on_epoch=lambda _: after.append(copy_state(model)))
    assert result.best == [4]
    assert all("val" not in line and "val_loss" not in line for line in result.epochs)
    assert changed_names(copy_state(model), after[3]) == set()


@pytest.mark.parametrize("policy", ["linear_probe", "partial:1"])
def test_heads_are_scaled_to_the_training_rows_alone(
    taught: Callable[..., Any], data: TrainingData, policy: str
) -> None:
    """To the features before training, as the network gives them in evaluation."""
    model, plan = taught(policy)
    model.freeze(plan.phases[0])
    feed = TrunkCache().feed(model.eval(), data.table.paths, data.digests, batch_size=64, workers=1)
    with torch.inference_mode():
        features = torch.cat([model.features(a).float() for _, a in feed.batches(data.train)])
    fit(model, plan, data, replace(QUICK, epochs=1), TrunkCache())
    assert torch.allclose(model.heads.centre, features.mean(0), atol=1e-5)


def test_heads_of_an_untrained_network_are_not_scaled(taught: Callable[..., Any], data: TrainingData) -> None:
    model, plan = taught("scratch")
    fit(model, plan, data, replace(QUICK, epochs=1), TrunkCache())
    assert not model.heads.centre.any()  # nothing is known of features that are yet to be learned


def test_clipping_bounds_the_step(taught: Callable[..., Any], data: TrainingData) -> None:
    """One step of plain gradient descent moves no further than rate times the largest norm."""
    for clip in (0.01, 0.1):
        model, plan = taught()
        start = copy_state(model)
        config = LearnConfig(
            probe="trained",
            optimizer="sgd",
            momentum=0.0,
            weight_decay=0.0,
            schedule="constant",
            warmup=0.0,
            lr=2.0,
            clip=clip,
        )
        fit(model, plan, data, replace(config, epochs=1, batch_size=64, workers=1), TrunkCache())
        moved = [model.state_dict()[n] - start[n] for n in start if n.startswith("heads.layers")]
        assert sum(float(m.square().sum()) for m in moved) ** 0.5 == pytest.approx(2.0 * clip, rel=1e-3)


def test_it_learns_in_bfloat16(taught: Callable[..., Any], data: TrainingData) -> None:
    model, plan = taught("partial:1", ABLE)
    result = fit(model, plan, data, replace(LEARN, precision="bfloat16"), TrunkCache())
    assert measured(model, data, data.val)[0]["object"] >= 0.8
    assert not result.moved


LAST_OF_ONE = {"plain": {}, "in parts": {"accumulate": 3}, "averaged": {"average": "swa"}}


@pytest.mark.parametrize("case", LAST_OF_ONE)
def test_a_last_batch_of_one_image_joins_the_others_where_norms_learn(
    taught: Callable[..., Any], data: TrainingData, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    """This network normalises after pooling: one image would have one value per channel."""
    model, plan = taught("full", "mobilenetv4_conv_small", statistics="learning")
    few = replace(data, train=data.train[:9])
    config = LearnConfig(**{"epochs": 1, "batch_size": 4} | LAST_OF_ONE[case])
    seen: list[int] = []
    features = model.features
    monkeypatch.setattr(model, "features", lambda x: seen.append(len(x)) or features(x))
    fit(model, plan, few, config, TrunkCache())
    assert min(seen) >= 2


def test_a_step_on_one_image_is_refused_where_norms_learn(taught: Callable[..., Any], data: TrainingData) -> None:
    model, plan = taught("full", "mobilenetv4_conv_small", statistics="learning")
    for rows, size in ((9, 1), (1, 4)):
        few = replace(data, train=data.train[:rows], val=data.val[:0])
        with pytest.raises(TransferError, match="one image has no variance"):
            fit(model, plan, few, LearnConfig(epochs=1, batch_size=size), TrunkCache())


def test_frozen_statistics_take_batches_as_they_are(
    taught: Callable[..., Any], data: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, plan = taught("full", statistics="frozen")
    seen: list[int] = []
    features = model.features
    monkeypatch.setattr(model, "features", lambda x: seen.append(len(x)) or features(x))
    few = replace(data, train=data.train[:9], val=data.val[:0])
    fit(model, plan, few, LearnConfig(epochs=1, batch_size=4), TrunkCache())
    assert sorted(seen[-3:]) == [1, 4, 4]


@pytest.mark.parametrize("policy", ["full", "lp_ft:1"])
def test_training_in_which_no_head_can_learn_is_refused(
    taught: Callable[..., Any], data: TrainingData, policy: str
) -> None:
    model, plan = taught(policy)
    for spec in model.heads.specs.values():
        object.__setattr__(spec, "weight", 0.0)
    with pytest.raises(TransferError, match="--loss-weights: object, domain has weight 0, so nothing can be learned"):
        fit(model, plan, data, LEARN, TrunkCache())


def test_solved_heads_need_no_loss_weight(taught: Callable[..., Any], data: TrainingData) -> None:
    model, plan = taught("linear_probe")
    for spec in model.heads.specs.values():
        object.__setattr__(spec, "weight", 0.0)
    assert fit(model, plan, data, LearnConfig(), TrunkCache()).best


class Script(TimeLimit):
    """A limit that says after each epoch how many more fit, instead of reading a clock."""

    def __init__(self, *more: int) -> None:
        super().__init__()
        object.__setattr__(self, "more", list(more))
        object.__setattr__(self, "parts", [])

    def share(self, part: float) -> TimeLimit:
        self.parts.append(part)
        return self

    def count_epochs(self, planned: int, seconds: float) -> int:
        assert seconds > 0
        return min(planned, self.more.pop(0) if self.more else 99)


def test_a_limit_on_time_shortens_a_phase_and_its_schedule(taught: Callable[..., Any], data: TrainingData) -> None:
    """After the first epoch three more fit, after the second only one."""
    model, plan = taught()
    result = fit(model, plan, data, replace(QUICK, epochs=20), TrunkCache(), limit=Script(3, 1))
    assert [line["of"] for line in result.epochs] == [20, 4, 3]
    assert result.epochs[-1]["rate"] == pytest.approx(0.0, abs=1e-9)
    assert result.shortened == [f"{plan.phases[0].name}: 3 of 20 epochs fit into --minutes"]


def test_phases_share_the_time_that_is_left_as_they_share_epochs(
    taught: Callable[..., Any], data: TrainingData
) -> None:
    model, plan = taught("lp_ft")
    limit = Script(0, 0)
    result = fit(model, plan, data, replace(QUICK, epochs=10), TrunkCache(), limit=limit)
    first, second = (phase.share for phase in plan.phases)
    assert limit.parts == pytest.approx([first / (first + second), 1.0])
    assert [line["phase"] for line in result.epochs] == ["probe", "fine-tune"]
    assert len(result.shortened) == 2


def test_one_epoch_is_trained_when_no_time_is_left(taught: Callable[..., Any], data: TrainingData) -> None:
    model, plan = taught()
    result = fit(model, plan, data, replace(QUICK, epochs=5), TrunkCache(), limit=TimeLimit(0.0))
    assert len(result.epochs) == 1


def test_a_limit_that_is_not_reached_changes_nothing(taught: Callable[..., Any], data: TrainingData) -> None:
    states = []
    for limit in (TimeLimit(), TimeLimit.after(60)):
        model, plan = taught("partial:1")
        result = fit(model, plan, data, QUICK, TrunkCache(), limit=limit)
        states.append(copy_state(model))
        assert not result.shortened
    assert changed_names(*states) == set()


def test_what_is_repeated_is_not_shortened(taught: Callable[..., Any], data: TrainingData) -> None:
    model, plan = taught()
    result = fit(model, plan, data, QUICK, TrunkCache(), repeat=[3], limit=TimeLimit(0.0))
    assert len(result.epochs) == 3


def test_a_schedule_of_several_cycles_is_not_shortened(taught: Callable[..., Any], data: TrainingData) -> None:
    model, plan = taught()
    result = fit(model, plan, data, replace(QUICK, epochs=4, cycles=2), TrunkCache(), limit=TimeLimit(0.0))
    assert len(result.epochs) == 4
