"""What each of several processes checks; see ranks.py."""

import hashlib
import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from transfer import backbones, freeze
from transfer.config.train import CacheConfig
from transfer.data.images.augment import Augmentation
from transfer.disk_cache import DiskCache
from transfer.errors import TransferError
from transfer.feature_cache import TrunkCache
from transfer.heads import HeadSpec
from transfer.heads.heads import Heads
from transfer.model import TransferModel
from transfer.runtime import distributed
from transfer.runtime.distributed.batches import any_rank_mask, fork_rng_by_rank, gather_rows, get_local_rows, wrap_ddp
from transfer.runtime.distributed.sync_batch_norm import SyncBatchNormMode


def words(folder: Path) -> None:
    """All wait for the slowest, hear of one what only one knows, and take turns."""
    rank, world = distributed.get_rank(), distributed.get_world_size()
    assert distributed.is_rank_zero() == (rank == 0)
    assert (distributed.get_local_rank(), distributed.get_local_world_size()) == (rank, world)
    (folder / f"begun{rank}").touch()
    if rank == world - 1:
        time.sleep(0.3)
    (folder / f"there{rank}").touch()
    distributed.wait_for_all()
    assert len(list(folder.glob("there*"))) == world
    assert distributed.any_rank(rank == 1) is True
    assert distributed.any_rank(False) is False
    value = {"seconds": 0.1 + rank, "names": ["é", None], "nan": float("inf")}
    assert distributed.broadcast(value) == {"seconds": 0.1, "names": ["é", None], "nan": float("inf")}
    with distributed.local_rank_zero_first():
        assert (folder / "done").exists() == (rank > 0)
        time.sleep(0.05)
        (folder / "done").touch()
    assert any_rank_mask(np.arange(5) == rank).tolist() == [n < world for n in range(5)]
    assert not any_rank_mask(np.zeros(3, bool)).any()


def rows(folder: Path) -> None:
    """The gradient of a loss on gathered rows is that of one process, however they are shared out."""
    for count in (7, 4, 1):
        torch.manual_seed(count)
        x, target = torch.randn(count, 3, 2), torch.randn(count)
        tail, head = nn.Linear(6, 4), nn.Linear(4, 1)

        class Asking(nn.Module):
            def __init__(self, part: slice, tail: nn.Module = tail, head: nn.Module = head) -> None:
                super().__init__()
                self.tail, self.head, self.part = tail, head, part

            def forward(self, x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
                features = self.tail(x[self.part].flatten(1))
                features = gather_rows(features, len(x)) if self.part != slice(None) else features
                # no sum over rows: a largest singular value, and a mean of their products
                return torch.linalg.svdvals(features)[0] + (self.head(features)[:, 0] * target).square().mean()

        def slopes(module: nn.Module, x: torch.Tensor = x, target: torch.Tensor = target) -> list[torch.Tensor]:
            module.zero_grad()
            module(x, target).backward()
            return [p.grad.clone() for p in module.parameters()]

        alone = slopes(Asking(slice(None)))
        together = slopes(wrap_ddp(Asking(get_local_rows(count))))
        assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(alone, together, strict=True))
        for dtype in (torch.uint8, torch.float16, torch.bfloat16, torch.int64):
            values = (100 * x).to(dtype)
            assert torch.equal(gather_rows(values[get_local_rows(count)], count), values)
    torch.manual_seed(5)
    before = torch.rand(1)
    with fork_rng_by_rank(torch.device("cpu"), 3, 4):
        mine = torch.rand(4)
    theirs = gather_rows(mine[None], distributed.get_world_size())
    assert len(torch.unique(theirs)) == theirs.numel()
    with fork_rng_by_rank(torch.device("cpu"), 3, 4):
        assert torch.equal(torch.rand(4), mine)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(1), before)
    assert len(torch.unique(gather_rows(torch.rand(1), distributed.get_world_size()))) == 1


def norms(folder: Path) -> None:
    """Statistics, output and gradient are those of the whole batch in one process, whatever part is whose."""
    for count, shape, affine in ((7, (5, 5), True), (2, (3, 3), True), (1, (4, 4), False), (6, (), True)):
        torch.manual_seed(count)
        x, weight = 3 + 2 * torch.randn(count, 4, *shape), torch.randn(count, 4, *shape)
        kind = nn.BatchNorm2d if shape else nn.BatchNorm1d
        alone, together = kind(4, affine=affine), kind(4, affine=affine)
        if affine:
            nn.init.normal_(alone.weight)
            nn.init.normal_(alone.bias)
        together.load_state_dict(alone.state_dict())
        given = x.clone().requires_grad_()
        (alone(given).square() * weight).sum().backward()
        part = get_local_rows(count)
        mine = x[part].clone().requires_grad_()
        with SyncBatchNormMode():
            out = together(mine)
        assert torch.allclose(out, alone(x)[part], atol=1e-5)
        (out.square() * weight[part]).sum().backward()
        assert torch.allclose(mine.grad, given.grad[part], atol=1e-4)
        for name, p in together.named_parameters():
            whole = sum(gather_rows(p.grad[None], distributed.get_world_size()))
            assert torch.allclose(whole, dict(alone.named_parameters())[name].grad, rtol=1e-4, atol=1e-4)
        once = kind(4, affine=affine)
        once(x)
        assert torch.allclose(together.running_mean, once.running_mean, atol=1e-6)
        assert torch.allclose(together.running_var, once.running_var, atol=1e-6)
        with SyncBatchNormMode():
            assert torch.equal(alone.eval()(x[part]), alone.eval()(x)[part])
    half = torch.randn(6, 4, 3, 3).bfloat16()
    with SyncBatchNormMode():
        assert nn.BatchNorm2d(4)(half[get_local_rows(6)]).dtype == torch.bfloat16


def counted(make: Any, made: list[int], rows: np.ndarray, *more: Any) -> Any:
    made.extend(rows)
    return make(rows, *more)


def extraction(folder: Path) -> None:
    """What two processes keep are the rows that one keeps, to the byte; each computed its share."""
    paths = np.array(json.loads((folder / "paths.json").read_text()))
    digests = np.array([hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in paths])
    some = np.arange(len(paths))
    backbone = backbones.load("test_resnet", random_init=True, image_size=32)
    model = TransferModel(backbone, Heads([HeadSpec("none", "softmax", ("", "-"))], backbone.width)).eval()
    for policy in ("linear_probe", "partial:2"):
        model.freeze(freeze.plan(policy, backbone).phases[0])
        store = DiskCache(folder / "together" / policy)
        cache = TrunkCache(disk_cache=store)
        feed = cache.feed(model, paths, digests, batch_size=10)
        made: list[int] = []
        feed._compute = partial(counted, feed._compute, made)
        feed.prepare(some[:20])
        feed.prepare(some)
        assert len(made) == len(some) // distributed.get_world_size()
        distributed.wait_for_all()
        alone = TrunkCache(disk_cache=DiskCache(folder / f"alone{distributed.get_rank()}" / policy))
        kept = [np.concatenate([a.numpy() for _, a in feed.batches(some)])]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("transfer.feature_cache.feed.distributed.get_local_rank", lambda: 0)
            patch.setattr("transfer.feature_cache.feed.distributed.get_local_world_size", lambda: 1)
            one = alone.feed(model, paths, digests, batch_size=10)
            one.prepare(some)
            kept.append(np.concatenate([a.numpy() for _, a in one.batches(some)]))
        assert kept[0].tobytes() == kept[1].tobytes()
        split = [activation.numpy() for _, activation in feed.batches(some, split=True)]
        whole = [activation.numpy() for _, activation in feed.batches(some)]
        for mine, batch in zip(split, whole, strict=True):
            assert mine.tobytes() == (batch[get_local_rows(len(batch))] if feed.splits_batches else batch).tobytes()
    crop = Augmentation(crop_scale=(0.35, 1.0), flip=True, jitter=0.0)
    order = np.concatenate([some[::-1], some[:3]])  # rows that come twice are drawn twice
    for policy in ("linear_probe", "partial:1", "full"):
        model.freeze(freeze.plan(policy, backbone).phases[0])
        feed = TrunkCache(CacheConfig(cache=False)).feed(model, paths, digests, batch_size=10)
        drawn = list(feed.batches(order, augmentation=crop, seed=1, epoch=2, split=True))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("transfer.feature_cache.feed.distributed.get_world_size", lambda: 1)
            patch.setattr("transfer.runtime.distributed.batches.get_world_size", lambda: 1)
            patch.setattr("transfer.runtime.distributed.batches.get_rank", lambda: 0)
            alone = list(feed.batches(order, augmentation=crop, seed=1, epoch=2))
        for (index, mine), (wanted, batch) in zip(drawn, alone, strict=True):
            assert (index == wanted).all()
            assert torch.equal(mine, batch[get_local_rows(len(batch))] if feed.splits_batches else batch)
    feed.batch_size = 1
    with pytest.raises(TransferError, match="less than the 2 processes"):
        next(feed.batches(some, split=True))


def full(folder: Path) -> None:
    """Where one process cannot keep its share, all go on without a cache, alike."""
    paths = np.array(json.loads((folder / "paths.json").read_text()))
    digests = np.array([hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in paths])
    backbone = backbones.load("test_resnet", random_init=True, image_size=32)
    model = TransferModel(backbone, Heads([HeadSpec("none", "softmax", ("", "-"))], backbone.width)).eval()
    model.freeze(freeze.plan("linear_probe", backbone).phases[0])
    cache = TrunkCache(disk_cache=DiskCache(folder / "full", limit=1 << 30 if distributed.is_rank_zero() else 10))
    feed = cache.feed(model, paths, digests, batch_size=10)
    features = torch.cat([a for _, a in feed.batches(np.arange(len(paths)))])
    assert feed.disk_cache is None
    assert features.shape == (len(paths), backbone.width)
    assert torch.equal(features, gather_rows(features[get_local_rows(len(paths))], len(paths)))
