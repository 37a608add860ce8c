"""An epoch is the loop that one would write by hand, whatever the settings, and wherever it was interrupted."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_states import copy_state
from torch import Tensor

from transfer import freeze
from transfer.config.train import LearnConfig, RegulariseConfig
from transfer.data.table import ImageTable
from transfer.evaluation.predictions import target_tensors
from transfer.feature_cache import Feed, TrunkCache
from transfer.freeze import FreezePlan
from transfer.heads import HeadSpec
from transfer.heads.heads import Heads
from transfer.model import TransferModel
from transfer.training import optimizers
from transfer.training.epoch import EpochProgress, EpochTrainer, TrainingData

NAMES = ("object", "domain")


@dataclass(repr=False)  # hypothesis prints what fails
class Probe:
    """Heads on frozen features, with a third of the objects unknown."""

    model: TransferModel
    plan: FreezePlan
    data: TrainingData
    feed: Feed
    features: Tensor  # of all images
    start: dict[str, Tensor]

    def trainer(self, config: LearnConfig, optimizer: Any = None) -> EpochTrainer:
        """Return a trainer of the heads as they were at the start, or of those that `optimizer` has."""
        if optimizer is None:
            self.model.load_state_dict(self.start)
            optimizer = optimizers.build_optimizer(self.model, self.plan, config)
        feed, phase = self.feed.with_batch_size(config.batch_size), self.plan.phases[0]
        labels = target_tensors(self.data.table, self.model)
        return EpochTrainer(self.model, feed, self.data, labels, optimizer, phase, config)

    def weights(self) -> dict[str, Tensor]:
        """Return the heads' weights and biases."""
        return {name: t for name, t in copy_state(self.model.heads).items() if name.startswith("layers.")}


@pytest.fixture(scope="module")
def probe(small: Callable[..., Any], images: ImageTable, digests: np.ndarray) -> Probe:
    """Heads on the features of 7 images of each of four cells, 3 of one and 1 of another."""
    values = images.object.copy()
    values[::3] = -1
    table = replace(images, targets=images.targets | {"object": replace(images.targets["object"], values=values)})
    place, cell = np.arange(len(images)) % 8, np.arange(len(images)) // 8
    train = np.flatnonzero(place < np.array([7, 7, 3, 7, 7, 1])[cell])
    data = TrainingData(table, digests, train, train[:0])
    backbone = small()
    torch.manual_seed(0)
    specs = [
        HeadSpec(name, classes=table.targets[name].classes, weight=weight)
        for name, weight in zip(NAMES, (1, 0.5), strict=True)
    ]
    model = TransferModel(backbone, Heads(specs, backbone.width))
    plan = freeze.plan("linear_probe", backbone)
    model.freeze(plan.phases[0])
    feed = TrunkCache().feed(model, table.paths, digests, batch_size=64, workers=1)
    features = torch.cat([x for _, x in feed.batches(np.arange(len(table)))]).clone()
    features = features.float()
    model.heads.scale_to(features[train])
    return Probe(model, plan, data, feed, features, copy_state(model))


def by_hand(probe: Probe, config: LearnConfig, position: tuple[int, int], key: list[int]) -> tuple[Any, ...]:
    """Return weights, loss, accuracies and last rate of an epoch of gradient descent with momentum."""
    rng, train = np.random.default_rng(key), probe.data.train
    labels = {name: torch.from_numpy(probe.data.table.targets[name].values) for name in NAMES}
    seen = {name: labels[name][train] for name in NAMES}
    counts = {name: [int((seen[name] == c).sum()) for c in range(int(seen[name].max()) + 1)] for name in NAMES}
    rows = rng.permutation(train)
    if config.balance == "sampling":
        rng = np.random.default_rng(key)
        each = [1 / (counts["object"][o] if o >= 0 else max(counts["object"])) for o in seen["object"].tolist()]
        rows = rng.choice(train, size=len(train), p=np.array(each) / sum(each))
    rng.integers(2**31)  # the seed of augmentations
    weights = {name: w.double().requires_grad_() for name, w in probe.weights().items()}
    heads, buffers = probe.model.heads, {name: torch.zeros_like(w) for name, w in weights.items()}
    x_all = ((probe.features - heads.centre) / heads.spread).double()
    batches = [rows[i : i + config.batch_size] for i in range(0, len(rows), config.batch_size)]
    total, right, known, rate = 0.0, dict.fromkeys(NAMES, 0), dict.fromkeys(NAMES, 0), 0.0
    for step, batch in enumerate(batches, 1):
        done = (position[0] - 1 + step / len(batches)) / position[1]
        rest = (done - config.warmup) / (1 - config.warmup)
        factor = done / config.warmup if done < config.warmup else 0.5 + 0.5 * math.cos(math.pi * rest)
        rate = config.lr * (factor if config.schedule == "cosine" or done < config.warmup else 1.0)
        x, index = x_all[torch.from_numpy(batch)], [(1.0, torch.from_numpy(batch))]
        if config.regularise.mixup:
            rng.integers(1)  # which kind of mixing
            share = rng.beta(config.regularise.mixup, config.regularise.mixup)
            order = torch.from_numpy(rng.permutation(len(batch)))
            x = share * x + (1 - share) * x[order]
            index = sorted([(share, index[0][1]), (1 - share, index[0][1][order])], key=lambda part: -part[0])
        loss = torch.zeros((), dtype=torch.float64)
        for name in NAMES:
            out = x @ weights[f"layers.head_{name}.0.weight"].T + weights[f"layers.head_{name}.0.bias"]
            for share, part in index:
                y = labels[name][part]
                smooth = torch.full_like(out, config.label_smoothing / out.shape[1])
                smooth[torch.arange(len(y)), y.clamp(min=0)] += 1 - config.label_smoothing
                each = -(smooth * out.log_softmax(1)).sum(1)
                w = torch.ones(len(y), dtype=torch.float64)
                if config.balance == "loss":
                    w = torch.tensor([sum(counts[name]) / (len(counts[name]) * counts[name][c]) for c in y.tolist()])
                w = torch.where(y >= 0, w.double(), 0.0)
                if bool((y >= 0).any()):
                    loss = loss + share * probe.model.heads.specs[name].weight * (w * each).sum() / w.sum()
            y = labels[name][index[0][1]]
            right[name] += int((out.argmax(1) == y).sum())
            known[name] += int((y >= 0).sum())
        loss.backward()
        gradients = {name: torch.zeros_like(w) if w.grad is None else w.grad for name, w in weights.items()}
        norm = math.sqrt(sum(float(g.square().sum()) for g in gradients.values()))
        for name, w in weights.items():
            g = gradients[name] * (min(1.0, config.clip / norm) if config.clip else 1.0)
            g = g + config.weight_decay * w.detach() * (w.ndim > 1)
            buffers[name] = config.momentum * buffers[name] + g
            weights[name] = (w - rate * buffers[name]).detach().requires_grad_()
        total += float(loss.detach()) * len(batch)
    weights = {name: w.detach() for name, w in weights.items()}
    return weights, total / len(rows), {name: right[name] / known[name] for name in NAMES}, rate


CONFIGS = st.builds(
    LearnConfig,
    optimizer=st.just("sgd"),
    lr=st.sampled_from([0.05, 0.2]),
    momentum=st.sampled_from([0.0, 0.9]),
    weight_decay=st.sampled_from([0.0, 0.1]),
    batch_size=st.sampled_from([5, 8, 32, 64]),
    clip=st.sampled_from([0.0, 0.02, 0.5]),
    label_smoothing=st.sampled_from([0.0, 0.3]),
    schedule=st.sampled_from(["cosine", "constant"]),
    warmup=st.sampled_from([0.0, 0.4]),
    accumulate=st.integers(1, 3),
    balance=st.sampled_from(["none", "loss", "sampling"]),
    regularise=st.builds(RegulariseConfig, mixup=st.sampled_from([0.0, 0.5])),
)


class Interrupt(Exception):
    """Stands for Ctrl-C after a step."""


@settings(max_examples=40)
@given(
    config=CONFIGS,
    position=st.sampled_from([(1, 1), (1, 3), (2, 3)]),
    key=st.lists(st.integers(0, 5), min_size=3, max_size=3),
    stop=st.integers(0, 3),
)
def test_an_epoch_is_a_loop_of_gradient_steps(
    probe: Probe, config: LearnConfig, position: tuple[int, int], key: list[int], stop: int
) -> None:
    trainer, progress, passes = probe.trainer(config), EpochProgress(), []
    weights, loss, accuracy, rate = by_hand(probe, config, position, key)

    def interrupt() -> None:
        if progress.step == stop:
            raise Interrupt

    trainer.after_step = interrupt
    steps = math.ceil(len(probe.data.train) / config.batch_size)
    hook = probe.model.heads.register_forward_hook(lambda module, given, out: passes.append(len(given[0])))
    try:
        line = trainer.run_epoch(position, key, progress)
        assert not 1 <= stop <= steps
    except Interrupt:
        line = probe.trainer(config, trainer.optimizer).run_epoch(position, key, progress)
    finally:
        hook.remove()
    found = probe.weights()
    assert max(float((found[name] - weights[name]).abs().max()) for name in found) < 1e-4
    assert line["loss"] == pytest.approx(loss, rel=1e-4)
    assert line["train"] == pytest.approx(accuracy, abs=1e-6)
    assert line["rate"] == pytest.approx(rate, abs=1e-12)
    sizes = [min(config.batch_size, len(probe.data.train) - i * config.batch_size) for i in range(steps)]
    assert len(passes) == sum(min(config.accumulate, size) for size in sizes)
    assert sum(passes) == len(probe.data.train)


def seen_features(probe: Probe, augment: Any, key: list[int]) -> set[bytes]:
    """Return the features of the images of an epoch in which nothing is learned."""
    given: list[Tensor] = []
    trainer = probe.trainer(LearnConfig(optimizer="sgd", lr=1e-12, batch_size=8, augment=augment, workers=1))
    hook = probe.model.heads.register_forward_pre_hook(lambda module, inputs: given.append(inputs[0].detach().clone()))
    trainer.run_epoch((1, 1), key)
    hook.remove()
    return {row.numpy().round(3).tobytes() for row in torch.cat(given)}


def test_augmentations_are_drawn_anew_in_each_epoch_and_with_each_seed(probe: Probe) -> None:
    first = seen_features(probe, "crop", [0, 0, 1])
    assert seen_features(probe, "crop", [0, 0, 1]) == first
    for other in ([0, 0, 2], [0, 1, 1], [1, 0, 1]):
        assert not seen_features(probe, "crop", other) & first
    plain = [seen_features(probe, "none", [0, 0, epoch]) for epoch in (1, 2)]
    assert plain[0] == plain[1]
    assert not plain[0] & first


def test_a_loss_that_is_not_finite_takes_no_step(probe: Probe) -> None:
    trainer, steps = probe.trainer(LearnConfig(optimizer="sgd", batch_size=8)), []
    trainer.after_step = lambda: steps.append(1)
    with torch.no_grad():
        next(iter(probe.model.heads.parameters()))[0, 0] = math.inf
    before = probe.weights()
    line = trainer.run_epoch((1, 1), [0, 0, 1])
    assert list(line) == ["loss"]
    assert not math.isfinite(line["loss"])
    assert steps == []
    assert all(torch.equal(before[name], after) for name, after in probe.weights().items())


def test_an_image_that_cannot_be_read_is_reported_once(probe: Probe, monkeypatch: pytest.MonkeyPatch) -> None:
    batches, failures = Feed.batches, []

    def unreadable(self: Feed, *rows: Any, **how: Any) -> Any:
        yield next(iter(batches(self, *rows, **how)))
        raise OSError("no such image")

    monkeypatch.setattr(Feed, "batches", unreadable)
    trainer = probe.trainer(LearnConfig(optimizer="sgd", batch_size=8))
    trainer.on_failure = lambda: failures.append(1)
    with pytest.raises(OSError, match="no such image"):
        trainer.run_epoch((1, 1), [0, 0, 1])
    assert failures == [1]


@pytest.mark.parametrize(("precision", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_the_forward_pass_has_the_requested_precision(probe: Probe, precision: Any, dtype: torch.dtype) -> None:
    outputs: list[torch.dtype] = []
    layer = probe.model.heads.layers["head_object"]
    hook = layer.register_forward_hook(lambda module, inputs, out: outputs.append(out.dtype))
    probe.trainer(LearnConfig(optimizer="sgd", batch_size=64, precision=precision)).run_epoch((1, 1), [0, 0, 1])
    hook.remove()
    assert outputs == [dtype]


def test_an_epoch_of_lbfgs_reports_what_it_started_from(probe: Probe) -> None:
    config = LearnConfig(optimizer="lbfgs", batch_size=64, label_smoothing=0.1)
    trainer = probe.trainer(config)
    _, loss, accuracy, _ = by_hand(probe, config, (1, 2), [0, 0, 1])
    first, second = (trainer.run_epoch((epoch, 2), [0, 0, epoch]) for epoch in (1, 2))
    assert first["loss"] == pytest.approx(loss, rel=1e-4)
    assert first["train"] == pytest.approx(accuracy, abs=1e-6)
    assert second["loss"] < 0.9 * first["loss"]
    assert second["train"]["object"] > first["train"]["object"]
