"""Keeping activations changes no result, and nothing is computed twice."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from transfer.backbones.trunk import Trunk
from transfer.config.train import CacheConfig, LearnConfig
from transfer.data.images.augment import Augmentation
from transfer.data.images.preprocessing import prepare
from transfer.data.images.read import read_pixels
from transfer.data.table import ImageTable
from transfer.disk_cache import DiskCache
from transfer.disk_cache.row_cache import RowWriter
from transfer.feature_cache import TrunkCache
from transfer.feature_cache import feed as feed_module
from transfer.model import TransferModel
from transfer.training.epoch import TrainingData
from transfer.training.fit import fit

POLICIES = ["linear_probe", "partial:1", "partial:3", "full"]
CROP = Augmentation(crop_scale=(0.3, 0.8), flip=True)
Ready = Callable[..., TransferModel]
Caches = Callable[..., TrunkCache]


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each batch that was decoded for a feed has."""
    counts: list[int] = []

    class Counted(feed_module.ImageBatches):
        def __iter__(self) -> Any:
            for rows, images in super().__iter__():
                counts.append(len(rows))
                yield rows, images

    monkeypatch.setattr(feed_module, "ImageBatches", Counted)
    return counts


def all_rows(
    cache: TrunkCache, model: TransferModel, images: ImageTable, digests: np.ndarray, batch: int = 7, **how: Any
) -> Tensor:
    """Return what a feed gives for every row, asked for in another order than the table's."""
    order = np.random.default_rng(0).permutation(len(images))
    feed = cache.feed(model, images.paths, digests, batch_size=batch, workers=1)
    got = list(feed.batches(order, **how))
    full, rest = divmod(len(order), batch)
    assert [len(rows) for rows, _ in got] == [batch] * full + [rest] * (rest > 0)
    rows = np.concatenate([rows for rows, _ in got])
    assert rows.tolist() == order.tolist()
    return torch.cat([activation for _, activation in got])[np.argsort(rows)]


@pytest.mark.parametrize("policy", POLICIES)
def test_a_feed_gives_what_the_trunk_makes_of_each_image(
    ready: Ready, caches: Caches, images: ImageTable, digests: np.ndarray, policy: str
) -> None:
    model = ready(policy)
    pixels = [prepare(read_pixels(str(path)), model.backbone.preprocessing) for path in images.paths]
    for kept in (False, True, True):
        got = all_rows(caches(kept), model, images, digests)
        for i in range(0, len(images), 5):
            alone = model.trunk(pixels[i][None])[0]
            assert got[i].dtype == alone.dtype
            assert torch.equal(got[i], alone)


@pytest.mark.parametrize("name", ["test_resnet", "mobilenetv3_small_050", "torchvision:squeezenet1_1"])
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("views", [0, 2])
def test_keeping_changes_no_bit(
    ready: Ready, caches: Caches, images: ImageTable, digests: np.ndarray, policy: str, name: str, views: int
) -> None:
    policy = "partial:2" if policy == "partial:3" and "squeeze" in name else policy
    for precision in ("float16", "float32"):
        model = ready(policy, precision, name=name)
        how = {"augmentation": CROP, "seed": 3, "epoch": 1} if views else {}
        for batch in (7, 16):
            kept, anew = (all_rows(caches(k, views), model, images, digests, batch, **how) for k in (True, False))
            assert torch.equal(kept, anew)
            assert torch.equal(model(kept)["object"], model(anew)["object"])


@pytest.mark.parametrize("policy", ["linear_probe", "partial:1", "lp_ft:1"])
@pytest.mark.parametrize("augment", ["none", "crop"])
def test_keeping_changes_no_training_run(
    taught: Callable[..., Any], caches: Caches, data: TrainingData, policy: str, augment: str
) -> None:
    states = []
    config = LearnConfig(epochs=4, batch_size=10, workers=1, lr=0.01, augment=augment)
    for kept in (False, True, True):
        model, plan = taught(policy, name="mobilenetv3_small_050")
        result = fit(model, plan, data, config, caches(kept, views=2))
        lines = [{k: v for k, v in line.items() if k != "seconds"} for line in result.epochs]
        states.append((lines, model.state_dict()))
    for lines, state in states[1:]:
        assert lines == states[0][0]
        assert all(torch.equal(states[0][1][name], state[name]) for name in state)


def test_images_are_read_once(
    ready: Ready, caches: Caches, images: ImageTable, digests: np.ndarray, computed: list[int]
) -> None:
    model = ready()
    for cache in (caches(), caches()):  # as a second process would
        for feed in [cache.feed(model, images.paths, digests, batch_size=16, workers=1)] * 2:
            for _ in feed.batches(np.arange(len(images))):
                pass
    assert sum(computed) == len(images)


def test_a_feed_says_which_rows_are_cached(
    ready: Ready, caches: Caches, images: ImageTable, digests: np.ndarray, computed: list[int]
) -> None:
    cache, model, rows = caches(), ready(), np.arange(len(images))
    feed = cache.feed(model, images.paths, digests, batch_size=16, workers=1)
    assert not feed.find_cached(rows).any()
    list(feed.batches(rows[3:9]))
    before = sum(computed)
    assert np.flatnonzero(feed.find_cached(rows)).tolist() == [3, 4, 5, 6, 7, 8]
    assert feed.find_cached(rows[:0]).tolist() == []
    assert sum(computed) == before
    uncached = caches(False).feed(model, images.paths, digests, batch_size=16, workers=1)
    assert not uncached.find_cached(rows).any()


def test_images_are_decoded_by_as_many_workers_as_asked(
    ready: Ready, caches: Caches, images: ImageTable, digests: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int | None] = []
    batches = feed_module.ImageBatches
    monkeypatch.setattr(
        feed_module, "ImageBatches", lambda *a, **how: (asked.append(how["workers"]), batches(*a, **how))[1]
    )
    for kept in (True, False):
        feed = caches(kept).feed(ready(), images.paths, digests, batch_size=64, workers=3)
        assert sum(len(rows) for rows, _ in feed.batches(np.arange(5))) == 5
    assert asked == [3, 3]


@pytest.mark.parametrize(("seconds", "commits"), [(1000, 1), (0, 3)])
def test_what_is_computed_is_committed_from_time_to_time(
    ready: Ready,
    caches: Caches,
    images: ImageTable,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    seconds: float,
    commits: int,
) -> None:
    """Two batches: once at the end, or after each batch too."""
    count, commit = [], RowWriter.commit
    monkeypatch.setattr(RowWriter, "commit", lambda self: (count.append(1), commit(self))[1])
    monkeypatch.setattr(feed_module, "_SEAL_SECONDS", seconds)
    copies = [copied(images.paths[i % len(images)], tmp_path / f"{i}.png", bytes([i])) for i in range(96)]
    paths, digests = map(np.array, zip(*copies, strict=True))
    caches().feed(ready(), paths, digests, batch_size=8, workers=1).prepare(np.arange(96))
    assert len(count) == commits


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("rank", [0, 1])
def test_of_a_split_batch_each_process_gets_its_own_rows(
    ready: Ready,
    caches: Caches,
    images: ImageTable,
    digests: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    computed: list[int],
    rank: int,
    kept: bool,
) -> None:
    """As one of two processes sees it, without the other: nothing is gathered, and no more is decoded."""
    model = ready()
    whole = all_rows(caches(kept), model, images, digests)
    computed.clear()
    feed = caches(kept).feed(model, images.paths, digests, batch_size=7, workers=1)
    feed.prepare(np.arange(len(images)))
    for module in (feed_module.distributed, feed_module.shared):
        monkeypatch.setattr(module, "get_world_size", lambda: 2)
    monkeypatch.setattr(feed_module.shared, "get_rank", lambda: rank)
    monkeypatch.setattr(feed_module.shared, "gather_rows", None)
    rows = np.random.default_rng(0).permutation(len(images))[:19]
    batches = list(feed.batches(rows, split=True))
    assert [len(batch) for batch, _ in batches] == [7, 7, 5]
    for batch, own in batches:
        first = (len(batch) + 1) // 2  # of an odd number the first process has one row more
        assert torch.equal(own, whole[batch[first:] if rank else batch[:first]])
    assert sum(computed) == (0 if kept else (4 + 4 + 3, 3 + 3 + 2)[rank])


def test_seconds_are_those_of_computing(ready: Ready, caches: Caches, images: ImageTable, digests: np.ndarray) -> None:
    first, second = caches(), caches()
    all_rows(first, ready(), images, digests)
    all_rows(second, ready(), images, digests)
    assert first.seconds > 0
    assert second.seconds == 0


def test_added_images_cost_only_themselves(
    ready: Ready, caches: Caches, images: ImageTable, digests: np.ndarray, computed: list[int]
) -> None:
    model, cache = ready(), caches()
    whole = all_rows(caches(False), model, images, digests)
    computed.clear()
    cache.feed(model, images.paths, digests, batch_size=8, workers=1).prepare(np.arange(0, len(images), 3))
    assert sum(computed) == 16
    order = np.random.default_rng(1).permutation(len(images))  # another table, its rows elsewhere
    feed = caches().feed(model, images.paths[order], digests[order], batch_size=8, workers=1)
    got = torch.cat([activation for _, activation in feed.batches(np.arange(len(images)))])
    assert sum(computed) == len(images)
    assert torch.equal(got, whole[order])


def test_byte_identical_images_are_computed_once(
    ready: Ready, caches: Caches, images: ImageTable, digests: np.ndarray, computed: list[int]
) -> None:
    twice = np.concatenate([np.arange(6), np.arange(6)])
    feed = caches().feed(ready(), images.paths[twice], digests[twice], batch_size=8, workers=1)
    got = torch.cat([activation for _, activation in feed.batches(np.arange(12))])
    assert sum(computed) == 6
    assert torch.equal(got[:6], got[6:])


@pytest.mark.parametrize("policy", ["linear_probe", "partial:1"])
@pytest.mark.parametrize("precision", ["float16", "float32"])
def test_a_lower_cut_feeds_a_higher_one_in_float32_only(
    ready: Ready,
    caches: Caches,
    images: ImageTable,
    digests: np.ndarray,
    computed: list[int],
    policy: str,
    precision: str,
) -> None:
    lower, some = ready("partial:3", precision), np.arange(20)
    caches().feed(lower, images.paths, digests, batch_size=8, workers=1).prepare(some)
    computed.clear()
    higher = ready(policy)
    got = all_rows(caches(), higher, images, digests)
    assert sum(computed) == len(images) - (20 if precision == "float32" else 0)
    assert torch.equal(got, all_rows(caches(False), higher, images, digests))


def test_a_changed_weight_is_no_hit(ready: Ready, caches: Caches, images: ImageTable, digests: np.ndarray) -> None:
    cache, model = caches(), ready()
    before = all_rows(cache, model, images, digests)
    with torch.no_grad():
        model.backbone.network.conv1[0].weight.mul_(2)
    after = all_rows(cache, model, images, digests)
    assert not torch.equal(after, before)
    assert torch.equal(after, all_rows(caches(False), model, images, digests))


def copied(path: str, to: Path, more: bytes) -> tuple[str, str]:
    """Copy an image, with `more` after its end; return the path of the copy and its digest."""
    content = Path(path).read_bytes() + more
    to.write_bytes(content)
    return str(to), hashlib.sha256(content).hexdigest()


def test_a_changed_image_is_no_hit(
    ready: Ready, caches: Caches, images: ImageTable, digests: np.ndarray, computed: list[int], tmp_path: Path
) -> None:
    model = ready()
    all_rows(caches(), model, images, digests)
    computed.clear()
    paths, other = images.paths.astype(object), digests.copy()
    paths[5], other[5] = copied(paths[5], tmp_path / "changed.png", b"!")
    all_rows(caches(), model, replace(images, paths=paths), other)
    assert sum(computed) == 1


def test_fresh_views_are_drawn_anew_each_epoch_and_never_kept(
    ready: Ready, caches: Caches, images: ImageTable, digests: np.ndarray, tmp_path: Path
) -> None:
    model = ready()
    for kept in (False, True):
        one, same, later, other = (
            all_rows(caches(kept), model, images, digests, augmentation=CROP, seed=seed, epoch=epoch)
            for seed, epoch in ((0, 1), (0, 1), (0, 2), (1, 1))
        )
        assert torch.equal(one, same)
        assert not torch.equal(one, later)
        assert not torch.equal(one, other)
    assert not list(tmp_path.rglob("*.rows"))


def test_kept_views(ready: Ready, caches: Caches, images: ImageTable, digests: np.ndarray, computed: list[int]) -> None:
    model, n = ready("linear_probe"), len(images)
    rows, features = (
        caches(views=3).feed(model, images.paths, digests, batch_size=16, workers=1).load_all_views(np.arange(n), CROP)
    )
    assert rows.tolist() == list(range(n)) * 4
    assert sum(computed) == 4 * n
    views = features.view(4, n, -1)
    assert torch.equal(views[0], all_rows(caches(), model, images, digests))  # the evaluation view comes first
    assert all(not torch.equal(views[i], views[j]) for i in range(4) for j in range(i))
    # An epoch draws each image from among these, and epochs differ.
    epochs = [
        all_rows(caches(views=3), model, images, digests, augmentation=CROP, seed=0, epoch=epoch) for epoch in range(4)
    ]
    found = [[next(v for v in (1, 2, 3) if torch.equal(views[v][i], e[i])) for i in range(n)] for e in epochs]
    assert {v for one in found for v in one} == {1, 2, 3}
    assert all(found[i] != found[j] for i in range(4) for j in range(i))
    assert sum(computed) == 4 * n
    # More views cost only themselves, in another table too.
    order = np.random.default_rng(1).permutation(n)
    feed = caches(views=5).feed(model, images.paths[order], digests[order], batch_size=16, workers=1)
    more = feed.load_all_views(np.arange(n), CROP)[1].view(6, n, -1)
    assert sum(computed) == 6 * n
    assert torch.equal(more[:4], views[:, order])


@pytest.mark.parametrize("harm", ["truncated", "flipped", "foreign"])
def test_a_damaged_file_is_noticed_and_rebuilt(
    ready: Ready, caches: Caches, images: ImageTable, digests: np.ndarray, tmp_path: Path, harm: str
) -> None:
    model = ready()
    before = all_rows(caches(), model, images, digests)
    (file,) = tmp_path.rglob("*.rows")
    content = bytearray(file.read_bytes())
    if harm == "flipped":
        content[len(content) // 3] ^= 4
    file.write_bytes({"truncated": content[:-100], "flipped": content, "foreign": b"\x93NUMPY" + content[:999]}[harm])
    assert torch.equal(all_rows(caches(), model, images, digests), before)
    assert not DiskCache(tmp_path / "rows").verify()
    assert sum(shelf.rows for shelf in DiskCache(tmp_path / "rows").list_entries()) == len(images)


@pytest.mark.parametrize("trouble", ["too small", "no folder"])
def test_without_room_it_goes_on_without_keeping(
    ready: Ready,
    caches: Caches,
    images: ImageTable,
    digests: np.ndarray,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    trouble: str,
) -> None:
    model = ready()
    wanted = all_rows(caches(False), model, images, digests)
    if trouble == "no folder":
        (tmp_path / "rows").write_text("a file where the folder should be")
    cache = caches(limit=1000 if trouble == "too small" else 1 << 30)
    assert torch.equal(all_rows(cache, model, images, digests), wanted)
    (message,) = caplog.messages
    assert str(tmp_path / "rows") in message
    assert "recomputed in each epoch" in message


def test_a_bad_image_is_named_and_what_came_before_is_kept(
    ready: Ready, caches: Caches, images: ImageTable, digests: np.ndarray, tmp_path: Path, computed: list[int]
) -> None:
    from transfer.data.images.decode import BadImage

    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    copies = [copied(images.paths[i % len(images)], tmp_path / f"{i}.png", bytes([i])) for i in range(96)]
    sound, names = map(np.array, zip(*copies, strict=True))
    paths, others = sound.astype(object), names.copy()
    paths[80], others[80] = str(bad), hashlib.sha256(b"no image").hexdigest()
    with pytest.raises(BadImage, match=r"bad\.png"):
        caches().feed(ready(), paths, others, batch_size=8, workers=1).prepare(np.arange(96))
    computed.clear()
    caches().feed(ready(), sound, names, batch_size=8, workers=1).prepare(np.arange(96))
    assert sum(computed) == 96 - 64


def test_the_trunk_is_made_only_where_it_has_to_run(
    ready: Ready, caches: Caches, images: ImageTable, digests: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    all_rows(caches(), ready(), images, digests)

    def refuse(*_: Any) -> Trunk:
        raise AssertionError

    monkeypatch.setattr("transfer.model.Trunk", refuse)
    all_rows(caches(), ready(), images, digests)


def test_the_default_lies_in_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TRANSFER_CACHE", str(tmp_path / "mine"))
    disk_cache = TrunkCache(CacheConfig(cache_gb=2)).disk_cache
    assert disk_cache is not None
    assert disk_cache.root.is_relative_to(tmp_path / "mine")
    assert disk_cache.limit == 2 << 30
    assert TrunkCache(CacheConfig(cache=False)).disk_cache is None


def test_devices_share_no_rows(
    ready: Ready, caches: Caches, images: ImageTable, digests: np.ndarray, device: str
) -> None:
    """On each device the cache changes no bit, and on a GPU it finds none of the rows that a CPU computed."""
    model, rows = ready(), np.arange(len(images))
    cache, on_cpu = caches(), all_rows(caches(), model, images, digests)
    model.to(device)
    feed = cache.feed(model, images.paths, digests, batch_size=7, workers=1)
    assert feed.find_cached(rows).all() == (device == "cpu")
    cached = all_rows(cache, model, images, digests)
    assert feed.find_cached(rows).all()
    assert cached.device.type == device
    assert torch.equal(cached, all_rows(caches(kept=False), model, images, digests))
    torch.testing.assert_close(cached.cpu(), on_cpu, rtol=0.01, atol=0.01 * float(on_cpu.abs().max()))
