"""Which rows are learned from, how often, with what weight and in what precision."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from fits import ABLE, LEARN, QUICK, measured
from model_states import changed_names, copy_state
from saved_runs import epoch_lines
from torch import Tensor

from transfer import freeze
from transfer.config.train import RegulariseConfig
from transfer.data.images.augment import PRINCIPAL_COMPONENTS, PRINCIPAL_VALUES
from transfer.data.images.augment import augment as draw_view
from transfer.data.images.preprocessing import Preprocessing
from transfer.data.table import ImageTable, Target
from transfer.evaluation.predictions import evaluate_predictions, predict_rows, target_tensors
from transfer.feature_cache import Feed, TrunkCache
from transfer.heads import HeadSpec
from transfer.heads.heads import Heads
from transfer.model import TransferModel
from transfer.training import epoch as epoch_module
from transfer.training import optimizers
from transfer.training.epoch import AUGMENTATIONS, EpochTrainer, TrainingData, use_bfloat16
from transfer.training.fit import fit
from transfer.training.penalties.penalty import Penalty, PenaltyInputs


@pytest.mark.parametrize("policy", ["linear_probe", "partial:1"])
@pytest.mark.parametrize("augment", ["none", "colour"])
def test_the_same_seed_gives_the_same_bits_with_any_number_of_workers(
    taught: Callable[..., Any], data: TrainingData, policy: str, augment: Any
) -> None:
    runs = []
    for workers in (1, 4):
        model, plan = taught(policy)
        config = replace(QUICK, epochs=2, augment=augment, workers=workers)
        runs.append((epoch_lines(fit(model, plan, data, config, TrunkCache(), seed=3).epochs), copy_state(model)))
    assert runs[0][0] == runs[1][0]
    assert changed_names(runs[0][1], runs[1][1]) == set()


def test_another_seed_is_another_run(taught: Callable[..., Any], data: TrainingData) -> None:
    runs = []
    for seed in (3, 4):
        model, plan = taught()
        runs.append(epoch_lines(fit(model, plan, data, QUICK, TrunkCache(), seed=seed).epochs))
    assert runs[0] != runs[1]


def watched(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """Return a list that will hold the rows of each epoch's training batches."""
    epochs: list[np.ndarray] = []
    batches = Feed.batches

    def told(self: Feed, rows: np.ndarray, **how: Any) -> Any:
        if self.model.training:
            epochs.append(np.array(rows))
        return batches(self, rows, **how)

    monkeypatch.setattr(Feed, "batches", told)
    return epochs


def uneven(data: TrainingData) -> TrainingData:
    """Return data with 8 images of the first object, 2 of the second, 4 of the third, and 3 of none."""
    table = data.table
    rows = np.concatenate([data.train[table.object[data.train] == o][:n] for o, n in enumerate((8, 2, 4))])
    none = data.train[table.object[data.train] == 1][-3:]
    values = table.object.copy()
    values[none] = -1
    targets = table.targets | {"object": replace(table.targets["object"], values=values)}
    return replace(data, table=replace(table, targets=targets), train=np.concatenate([rows, none]), val=data.val[:0])


def test_each_training_row_once_an_epoch_in_a_new_order(
    taught: Callable[..., Any], data: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    epochs = watched(monkeypatch)
    model, plan = taught()
    fit(model, plan, data, QUICK, TrunkCache())
    assert len(epochs) == 4
    for rows in epochs:
        assert sorted(rows.tolist()) == sorted(data.train.tolist())
    assert len({tuple(rows.tolist()) for rows in epochs}) == 4


def test_balanced_sampling_draws_every_object_as_often(
    taught: Callable[..., Any], data: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    epochs = watched(monkeypatch)
    data = uneven(data)
    model, plan = taught()
    fit(model, plan, data, replace(QUICK, epochs=150, batch_size=64, balance="sampling"), TrunkCache())
    assert {len(rows) for rows in epochs} == {len(data.train)}
    assert {row for rows in epochs for row in rows.tolist()} == set(data.train.tolist())
    drawn = Counter(data.table.object[np.concatenate(epochs)].tolist())
    assert max(drawn[o] for o in range(3)) < 1.15 * min(drawn[o] for o in range(3))
    # An image of no known object is drawn as often as one of the commonest: 3 images to 8.
    assert drawn[-1] / drawn[0] == pytest.approx(3 / 8, rel=0.2)


def test_weighted_loss_makes_every_object_count_as_much(
    taught: Callable[..., Any], data: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = uneven(data)
    given: list[tuple[Tensor, Tensor]] = []
    loss = Heads.loss

    def told(self: Heads, out: Any, wanted: Any, **options: Any) -> Tensor:
        given.append((wanted["object"], options["row_weights"]["object"]))
        return loss(self, out, wanted, **options)

    monkeypatch.setattr(Heads, "loss", told)
    model, plan = taught()
    fit(model, plan, data, replace(QUICK, epochs=1, balance="loss"), TrunkCache())
    objects, weights = (torch.cat(part) for part in zip(*given, strict=True))
    for o, n in enumerate((8, 2, 4)):
        assert weights[objects == o].tolist() == pytest.approx([14 / (3 * n)] * n)
    assert float(weights[objects >= 0].mean()) == pytest.approx(1.0)


def test_a_weighted_loss_leaves_the_draw_alone(
    taught: Callable[..., Any], data: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    epochs = watched(monkeypatch)
    model, plan = taught()
    fit(model, plan, uneven(data), replace(QUICK, epochs=1, balance="loss"), TrunkCache())
    assert len(np.unique(epochs[0])) == len(epochs[0])  # a weighted loss leaves the draw alone


def hidden(data: TrainingData, name: str, rows: np.ndarray) -> TrainingData:
    values = data.table.targets[name].values.copy()
    values[rows] = -1
    targets = data.table.targets | {name: replace(data.table.targets[name], values=values)}
    return replace(data, table=replace(data.table, targets=targets))


@pytest.mark.parametrize("compose", ["dual", "joint"])
@pytest.mark.parametrize("policy", ["linear_probe", "partial:1"])
def test_rows_without_labels(
    taught: Callable[..., Any], data: TrainingData, images: ImageTable, policy: str, compose: str
) -> None:
    """Every other object is unknown, some domains too: what is known is learned, and also counted alone."""
    partly = hidden(hidden(data, "object", np.arange(0, len(images), 2)), "domain", np.arange(0, len(images), 3))
    model, plan = taught(policy, ABLE, compose=compose)
    result = fit(model, plan, partly, LEARN, TrunkCache())
    assert not result.stopped
    accuracy = measured(model, data, data.val)[0]
    assert accuracy["object"] >= 0.8
    assert accuracy["domain"] >= 0.8
    assert result.epochs[-1]["train"]["object"] >= 0.8


@pytest.mark.parametrize("compose", ["dual", "joint"])
def test_one_head_without_any_label(
    taught: Callable[..., Any], data: TrainingData, images: ImageTable, compose: str
) -> None:
    model, plan = taught(compose=compose)
    result = fit(model, plan, hidden(data, "domain", np.arange(len(images))), QUICK, TrunkCache())
    assert not result.stopped
    assert set(result.epochs[-1]["train"]) == {"object"}
    assert len(result.epochs) == 4


def test_further_heads_learn_too(small: Callable[..., Any], data: TrainingData, images: ImageTable) -> None:
    """A regression target and a binary one beside the object, some of each unknown."""
    striped = (images.domain == 1).astype(np.int64)
    amount = 40.0 + 10.0 * images.object
    striped[::5] = -1
    amount[::7] = np.nan
    more = {"striped": Target(striped, "binary", ("no", "yes")), "amount": Target(amount, "regression")}
    data = replace(data, table=replace(images, targets=images.targets | more))
    specs = [
        HeadSpec("object", classes=images.objects),
        HeadSpec("striped", "binary", ("no", "yes")),
        HeadSpec("amount", "regression", centre=50.0, spread=8.0),
    ]
    backbone = small()
    torch.manual_seed(0)
    model = TransferModel(backbone, Heads(specs, backbone.width))
    plan = freeze.plan("linear_probe", backbone)
    result = fit(model, plan, data, replace(QUICK, epochs=20, lr=0.01), TrunkCache())
    assert not result.stopped
    feed = TrunkCache().feed(model, images.paths, data.digests, batch_size=64, workers=1)
    answers, _ = predict_rows(model, feed, data.val, target_tensors(data.table, model))
    report = evaluate_predictions(data.table.take(data.val), answers)
    assert report["striped"]["accuracy"] >= 0.8
    assert report["amount"]["r2"] > 0.7
    assert report["object"]["accuracy"] >= 0.8


@pytest.mark.parametrize("precision", ["auto", "float32"])
def test_precision_on_a_cpu_is_float32_unless_asked_for(precision: str) -> None:
    assert not use_bfloat16(precision, torch.device("cpu"))
    assert use_bfloat16("bfloat16", torch.device("cpu"))


def test_auto_is_bfloat16_where_a_gpu_has_it_in_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    for native in (False, True):
        monkeypatch.setattr(
            torch.cuda, "is_bf16_supported", lambda including_emulation=True, n=native: including_emulation or n
        )
        assert use_bfloat16("auto", torch.device("cuda")) == native
        assert not use_bfloat16("auto", torch.device("cpu"))
        assert not use_bfloat16("float32", torch.device("cuda"))


def test_a_mixed_batch_answers_for_both_of_its_labels_by_their_shares(
    taught: Callable[..., Any], data: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[tuple[Tensor, Tensor, Any]] = []
    loss = Heads.loss

    def told(self: Heads, out: Any, wanted: Any, **options: Any) -> Tensor:
        value = loss(self, out, wanted, **options)
        given.append((wanted["object"], value.detach(), options["loss"]))
        return value

    monkeypatch.setattr(Heads, "loss", told)
    shares: list[tuple[float, ...]] = []
    mix = epoch_module.mix

    def seen(*given: Any) -> Any:
        activation, parts = mix(*given)
        shares.append(tuple(part.share for part in parts))
        return activation, parts

    monkeypatch.setattr(epoch_module, "mix", seen)
    model, plan = taught()
    learn = replace(QUICK, epochs=1, batch_size=0, loss="hinge", regularise=RegulariseConfig(mixup=1.0))
    result = fit(model, plan, replace(data, val=data.val[:0]), learn, TrunkCache())
    (one, first, kind), (two, second, _) = given
    ((share, rest),) = shares
    assert kind == "hinge"
    assert share >= 0.5
    assert share + rest == pytest.approx(1.0)
    assert result.epochs[0]["loss"] == pytest.approx(float(share * first + rest * second), rel=1e-5)
    assert sorted(one.tolist()) == sorted(two.tolist())
    assert one.tolist() != two.tolist()


def test_penalties_are_added_and_see_what_they_ask_for(taught: Callable[..., Any], data: TrainingData) -> None:
    steps: list[PenaltyInputs] = []

    class Hundred(Penalty):
        maps = ("layer4",)

        def __call__(self, step: PenaltyInputs) -> Tensor:
            steps.append(step)
            return step.features.sum() * 0 + 100

    model, plan = taught("partial:1")
    model.freeze(plan.phases[0])
    feed = TrunkCache().feed(model, data.table.paths, data.digests, batch_size=12, workers=1)
    labels = target_tensors(data.table, model)
    losses = []
    for penalties in ((), (Hundred(),)):
        torch.manual_seed(0)
        optimizer = optimizers.build_optimizer(model, plan, replace(QUICK, lr=1e-12))
        how = (model, feed, data, labels, optimizer, plan.phases[0], replace(QUICK, lr=1e-12))
        losses.append(EpochTrainer(*how, penalties=penalties).run_epoch((1, 1), [0, 0, 1])["loss"])
    assert losses[1] == pytest.approx(losses[0] + 100, abs=1e-2)
    assert [len(step.features) for step in steps] == [12, 12]
    assert torch.allclose(steps[0].maps["layer4"].mean((2, 3)), steps[0].features, atol=1e-5)
    assert [part.share for part in steps[0].labels] == [1.0]


def views_of(augment: Any, image: Tensor) -> Tensor:
    """Return 80 random views (80, 3, 32, 32) of an image, as floats."""
    preprocessing = Preprocessing((3, 32, 32), (0.5,) * 3, (0.5,) * 3, "bilinear", 1.0)
    rng = np.random.default_rng(0)
    return torch.stack([draw_view(image, preprocessing, AUGMENTATIONS[augment], rng) for _ in range(80)]).float()


RAMP = torch.linspace(0, 255, 64).round().to(torch.uint8).expand(3, 64, 64)  # brighter to the right


@pytest.mark.parametrize("augment", ["flip", "crop", "colour", "pca", "scale"])
def test_every_augmentation_mirrors_half_of_the_images(augment: Any) -> None:
    views = views_of(augment, RAMP)
    mirrored = (views[..., 0].mean((1, 2)) > views[..., -1].mean((1, 2))).float().mean()
    assert 0.3 < mirrored < 0.7


@pytest.mark.parametrize(("augment", "least"), [("flip", 1.0), ("crop", 0.5), ("colour", 0.4), ("pca", 0.5)])
def test_crops_have_a_third_of_an_image_or_more(augment: Any, least: float) -> None:
    """The sides are of 0.35 of the area and 3 : 4 or less: half of the image's. Colours change by up to 0.4 more."""
    views = views_of(augment, RAMP.transpose(1, 2))
    shown = (views.amax((1, 2, 3)) - views.amin((1, 2, 3))) / 250
    assert float(shown.min()) > 0.95 * least * (0.6 if augment == "colour" else 1)
    assert augment == "flip" or float(shown.min()) < 0.7
    assert augment == "flip" or float(shown.median()) < 0.95


def test_scales_are_those_of_resnet() -> None:
    """A short side of 256 to 480 pixels for a crop of 224."""
    views = views_of("scale", RAMP.transpose(1, 2))
    shown = (views.amax((1, 2, 3)) - views.amin((1, 2, 3))) / 255
    assert 0.43 < float(shown.min()) < 0.52
    assert 0.78 < float(shown.max()) < 0.9


@pytest.mark.parametrize("augment", ["flip", "crop", "scale"])
def test_a_plain_colour_stays_where_colours_are_left_alone(augment: Any) -> None:
    image = torch.tensor([30, 120, 200], dtype=torch.uint8).view(3, 1, 1).expand(3, 64, 64)
    assert (views_of(augment, image) == image[:, :32, :32]).all()


def test_colour_changes_brightness_by_up_to_two_fifths() -> None:
    factors = views_of("colour", torch.full((3, 64, 64), 100, dtype=torch.uint8)).mean((1, 2, 3)) / 100
    assert 0.58 < float(factors.min()) < 0.7
    assert 1.3 < float(factors.max()) < 1.42


def test_pca_shifts_along_the_first_component_by_a_tenth_of_its_value() -> None:
    shifts = views_of("pca", torch.full((3, 64, 64), 128, dtype=torch.uint8)).mean((2, 3)) - 128
    along = shifts @ torch.from_numpy(PRINCIPAL_COMPONENTS[:, 0]).float()
    assert float(along.std()) == pytest.approx(0.1 * 255 * PRINCIPAL_VALUES[0], rel=0.3)
