"""What a fit draws, by what it chooses, and what its rows weigh."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from fits import QUICK, measured
from model_states import changed_names, copy_state
from torch import Tensor

from transfer import freeze
from transfer.data.table import ImageTable
from transfer.feature_cache import Feed, TrunkCache
from transfer.heads import HeadSpec, dropout
from transfer.heads.heads import Heads
from transfer.model import TransferModel
from transfer.training import fit as fit_module
from transfer.training.epoch import TrainingData
from transfer.training.fit import fit


def test_every_seed_phase_and_epoch_has_an_order_of_its_own(
    taught: Callable[..., Any], data: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders: list[tuple[int, ...]] = []
    batches = Feed.batches

    def watched(self: Feed, rows: np.ndarray, **how: Any) -> Any:
        if self.model.training:
            orders.append(tuple(rows.tolist()))
        return batches(self, rows, **how)

    monkeypatch.setattr(Feed, "batches", watched)
    for seed in (0, 1, 0):
        model, plan = taught("lp_ft")
        fit(model, plan, data, QUICK, TrunkCache(), seed=seed)
    first, second, again = orders[:4], orders[4:8], orders[8:]
    assert len(orders) == 12
    assert again == first
    assert len({*first, *second}) == 8


def test_dropout_follows_the_seed_of_the_fit_alone(
    small: Callable[..., Any], data: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    masks: list[list[Tensor]] = []
    draw = dropout.draw_dropout_mask

    def watched(x: Tensor, p: float) -> tuple[Tensor, float]:
        mask, share = draw(x, p)
        masks[-1].append(mask)
        return mask, share

    monkeypatch.setattr(dropout, "draw_dropout_mask", watched)
    for before, seed in ((1, 3), (2, 3), (1, 4)):
        masks.append([])
        backbone = small()
        heads = Heads([HeadSpec("object", classes=data.table.objects)], backbone.width, dropout=0.5)
        plan = freeze.plan("linear_probe", backbone)
        torch.manual_seed(before)
        fit(TransferModel(backbone, heads), plan, data, QUICK, TrunkCache(), seed=seed)
    first, second, other = masks
    assert len(first) == 12
    assert all(map(torch.equal, first, second))
    assert not any(map(torch.equal, first, other))
    assert not any(map(torch.equal, first, first[1:]))


@pytest.mark.parametrize(("weights", "best"), [((1.0, 0.0), 2), ((0.0, 1.0), 3), ((1.0, 1.0), 3), ((0.1, 1.0), 3)])
def test_the_epoch_is_chosen_by_the_heads_that_have_a_loss(
    small: Callable[..., Any],
    data: TrainingData,
    monkeypatch: pytest.MonkeyPatch,
    weights: tuple[float, float],
    best: int,
) -> None:
    """By the mean of their scores, whatever their weights."""
    scores = iter([{"object": o, "domain": d} for o, d in ((0.1, 0.0), (0.6, 0.2), (0.5, 0.9), (0.4, 0.3))])
    monkeypatch.setattr(fit_module, "main_scores", lambda report, specs: next(scores))
    backbone, table = small(), data.table
    specs = [
        HeadSpec(name, classes=table.targets[name].classes, weight=weight)
        for name, weight in zip(("object", "domain"), weights, strict=True)
    ]
    model = TransferModel(backbone, Heads(specs, backbone.width))
    assert fit(model, freeze.plan("linear_probe", backbone), data, QUICK, TrunkCache()).best == [best]


def test_the_average_is_what_is_validated_and_returned(taught: Callable[..., Any], data: TrainingData) -> None:
    model, plan = taught()
    after: list[dict[str, Tensor]] = []
    losses: list[float] = []

    def on_epoch(line: dict[str, Any]) -> None:
        after.append(copy_state(model))
        losses.append(measured(model, data, data.val)[1])

    config = replace(QUICK, average="ema", ema_decay=0.9, lr=0.05)
    result = fit(model, plan, data, config, TrunkCache(), on_epoch=on_epoch)
    assert [line["val_loss"] for line in result.epochs] == pytest.approx(losses, rel=1e-5)
    assert changed_names(copy_state(model), after[result.best[0] - 1]) == set()
    plain, plan = taught()
    fit(plain, plan, data, replace(config, average="none"), TrunkCache())
    assert changed_names(copy_state(plain), copy_state(model))


@pytest.mark.parametrize("balance", ["none", "loss"])
def test_solved_heads_weigh_each_row_by_its_own_class(
    taught: Callable[..., Any], data: TrainingData, images: ImageTable, balance: Any
) -> None:
    """At the minimum the weighted mean of the predictions is the weighted share of each class: equal if balanced.

    Under strong L2, so that predictions are unsure: sure and correct ones have these shares whatever the weights.
    """
    order = np.random.default_rng(0).permutation(np.flatnonzero(np.arange(len(images)) % 8 < 6))
    place = np.arange(len(images)) // 8 % 3 * 2  # of the three objects 4, 8 and 12 images
    train = order[order % 8 < 2 + place[order]]
    data = replace(data, train=train)
    model, plan = taught()
    config = replace(QUICK, probe="solved", balance=balance)
    fit(model, plan, data, config, TrunkCache(), repeat=[{"object": 10.0, "domain": 10.0}])
    feed = TrunkCache().feed(model, images.paths, data.digests, batch_size=64, workers=1)
    with torch.inference_mode():
        out = model.heads(torch.cat([model.features(x) for _, x in feed.batches(train)]))["object"].softmax(1).numpy()
    objects = images.object[train]
    counts = np.bincount(objects)
    assert counts.tolist() == [4, 8, 12]
    weight = 1 / counts[objects] if balance == "loss" else np.ones(len(train))
    assert out.max() < 0.9
    expected = np.ones(3) / 3 if balance == "loss" else counts / counts.sum()
    np.testing.assert_allclose((weight[:, None] * out).sum(0) / weight.sum(), expected, atol=2e-3)
