"""Law 4: a wrong hit is worse than any miss, and keeping activations changes no result."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from transfer import cache as cache_module
from transfer.cache import TrunkCache
from transfer.config import LearnConfig
from transfer.data.images import Augmentation, decode, prepare
from transfer.data.table import ImageTable
from transfer.learn.fit import Lesson, fit
from transfer.model import TransferModel

POLICIES = ["linear_probe", "partial:1", "partial:3", "full"]


@pytest.fixture
def ready(taught: Callable[..., Any]) -> Callable[..., TransferModel]:
    """Build a model, frozen under a policy."""

    def build(policy: str = "partial:1", **options: Any) -> TransferModel:
        model, plan = taught(policy, **options)
        model.freeze(plan.phases[0])
        return model.eval()

    return build


def all_rows(
    model: TransferModel, images: ImageTable, digests: np.ndarray, limit: int, batch: int = 7, **how: Any
) -> Tensor:
    """Return what a feed gives for every row, asked for in another order than the table's."""
    order = np.random.default_rng(0).permutation(len(images))
    feed = TrunkCache(limit).feed(model, images.paths, digests, batch_size=batch, workers=1)
    got = list(feed.batches(order, **how))
    assert [len(rows) for rows, _ in got] == [batch] * (len(order) // batch) + [len(order) % batch] * (
        len(order) % batch > 0
    )
    rows = np.concatenate([rows for rows, _ in got])
    assert rows.tolist() == order.tolist()
    out = torch.cat([activation for _, activation in got])
    return out[np.argsort(rows)]


@pytest.mark.parametrize("policy", POLICIES)
def test_a_feed_gives_what_the_trunk_makes_of_each_image(
    ready: Callable[..., TransferModel], images: ImageTable, digests: np.ndarray, policy: str
) -> None:
    model = ready(policy)
    pixels = [prepare(decode(str(path)), model.backbone.preprocessing) for path in images.paths]
    for limit in (0, 1 << 30):
        got = all_rows(model, images, digests, limit)
        for i in range(0, len(images), 5):
            alone = model.trunk(pixels[i][None])[0]
            assert got[i].dtype == alone.dtype
            assert torch.allclose(got[i].float(), alone.float(), rtol=2e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["test_resnet", "mobilenetv3_small_050", "torchvision:squeezenet1_1"])
@pytest.mark.parametrize("policy", POLICIES)
def test_keeping_changes_no_bit(
    ready: Callable[..., TransferModel], images: ImageTable, digests: np.ndarray, policy: str, name: str
) -> None:
    policy = "partial:2" if policy == "partial:3" and "squeeze" in name else policy
    model = ready(policy, name=name)
    for batch in (7, 16):
        kept, anew = (all_rows(model, images, digests, limit, batch) for limit in (1 << 30, 0))
        assert torch.equal(kept, anew)
        assert torch.equal(model(kept)["object"], model(anew)["object"])


@pytest.mark.parametrize("policy", ["linear_probe", "partial:1"])
def test_keeping_changes_no_training_run(taught: Callable[..., Any], lesson: Lesson, policy: str) -> None:
    states = []
    for limit in (0, 1 << 30):
        model, plan = taught(policy, name="mobilenetv3_small_050")
        result = fit(model, plan, lesson, LearnConfig(epochs=3, batch_size=10, workers=1, lr=0.01), TrunkCache(limit))
        lines = [{k: v for k, v in line.items() if k != "seconds"} for line in result.epochs]
        states.append((lines, model.state_dict()))
    assert states[0][0] == states[1][0]
    assert all(torch.equal(states[0][1][name], states[1][1][name]) for name in states[0][1])


def test_images_are_read_once(
    ready: Callable[..., TransferModel], images: ImageTable, digests: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    batches = cache_module.ImageBatches
    monkeypatch.setattr(cache_module, "ImageBatches", lambda *a, **k: (made.append(1), batches(*a, **k))[1])
    model, cache = ready(), TrunkCache()
    first, second = (cache.feed(model, images.paths, digests, batch_size=16, workers=1) for _ in range(2))
    for feed in (first, first, second):
        for _ in feed.batches(np.arange(len(images))):
            pass
    assert len(made) == 1
    assert cache.seconds > 0


def keys(model: TransferModel, digests: np.ndarray) -> str:
    return TrunkCache().feed(model, np.array([""] * len(digests)), digests, batch_size=1).key


def test_the_key_covers_all_that_the_output_depends_on(
    ready: Callable[..., TransferModel], digests: np.ndarray
) -> None:
    model = ready("partial:2")
    before = keys(model, digests)
    seen = {before}

    def is_new() -> bool:
        key = keys(model, digests)
        fresh = key not in seen
        seen.add(key)
        return fresh

    assert keys(ready("partial:2"), digests) == before  # the same thing built anew is the same
    network = model.backbone.network
    trunk = [n for n, _ in [*network.named_parameters(), *network.named_buffers()] if model.backbone.stage_of(n) < 3]
    assert any(n.endswith("running_mean") for n in trunk)
    for name in dict.fromkeys([*trunk[::4], *(n for n in trunk if n.endswith("running_mean"))]):
        tensor = network.state_dict()[name]
        first = (0,) * tensor.ndim
        value = tensor[first].clone()
        tensor[first] = torch.nextafter(value, torch.tensor(torch.inf)) if value.is_floating_point() else value + 1
        assert is_new(), name
        tensor[first] = value
        assert keys(model, digests) == before
    for cut in (0, 1, 2, 4, 5):
        model.cut = cut
        assert is_new(), cut
    model.cut = 3
    given = model.backbone.preprocessing
    for change in (
        {"input_size": (3, 64, 64)},
        {"mean": (0.1, 0.2, 0.3)},
        {"std": (0.5, 0.5, 0.6)},
        {"interpolation": "nearest"},
        {"crop_pct": 0.5},
        {"crop_mode": "squash"},
    ):
        model.backbone.preprocessing = replace(given, **change)
        assert is_new(), change
    model.backbone.preprocessing = given
    for other in (digests[::-1], digests[:-1], np.array(["0" * 64, *digests[1:]])):
        assert keys(model, other) != before
    assert keys(model, digests) == before


def test_the_key_does_not_cover_what_learns(ready: Callable[..., TransferModel], digests: np.ndarray) -> None:
    model = ready("partial:1")
    before = keys(model, digests)
    with torch.no_grad():
        model.backbone.network.layer4[0].conv1.weight.add_(1)
        model.heads.layers["head_object"][0].weight.add_(1)
    assert keys(model, digests) == before


def test_a_changed_weight_is_no_hit(
    ready: Callable[..., TransferModel], images: ImageTable, digests: np.ndarray
) -> None:
    cache, model = TrunkCache(), ready()
    rows = np.arange(len(images))

    def first() -> Tensor:
        return next(iter(cache.feed(model, images.paths, digests, batch_size=48, workers=1).batches(rows)))[1]

    before = first()
    with torch.no_grad():
        model.backbone.network.conv1[0].weight.mul_(2)
    assert not torch.equal(first(), before)


def test_augmented_views_are_drawn_anew_each_epoch_and_never_kept(
    ready: Callable[..., TransferModel], images: ImageTable, digests: np.ndarray
) -> None:
    model = ready()
    crop = Augmentation(crop_scale=(0.3, 0.8), flip=True)
    for limit in (0, 1 << 30):
        one, same, later, other = (
            all_rows(model, images, digests, limit, augmentation=crop, seed=seed, epoch=epoch)
            for seed, epoch in ((0, 1), (0, 1), (0, 2), (1, 1))
        )
        assert torch.equal(one, same)
        assert not torch.equal(one, later)
        assert not torch.equal(one, other)
        assert not torch.equal(one, all_rows(model, images, digests, limit))


def block(size: int) -> Tensor:
    return torch.zeros(size, dtype=torch.uint8)


def test_the_least_recently_used_goes_first() -> None:
    cache = TrunkCache(limit=100)
    for name in "abc":
        assert cache.make_room(30)
        cache.put(name, block(30))
    assert cache.get("a") is not None
    assert cache.make_room(30)  # 90 are taken: b, not used for longest, has to go
    cache.put("d", block(30))
    assert [cache.get(name) is not None for name in "abcd"] == [True, False, True, True]


def test_room_is_made_for_all_that_fits_at_all() -> None:
    cache = TrunkCache(limit=100)
    cache.put("a", block(60))
    assert cache.make_room(40)
    assert cache.get("a") is not None
    assert cache.make_room(41)
    assert cache.get("a") is None
    assert cache.make_room(100)
    assert not cache.make_room(101)


def test_what_can_never_fit_drives_nothing_out() -> None:
    cache = TrunkCache(limit=100)
    cache.put("a", block(60))
    assert not cache.make_room(101)
    assert cache.get("a") is not None


def test_bytes_are_counted_by_precision() -> None:
    cache = TrunkCache(limit=100)
    cache.put("a", torch.zeros(20, dtype=torch.float32))
    assert cache.make_room(20)
    assert cache.get("a") is not None
    assert cache.make_room(21)
    assert cache.get("a") is None
