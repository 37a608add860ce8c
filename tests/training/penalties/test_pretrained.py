"""The network as it was, whatever becomes of the one that learns."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from transfer.evaluation.predictions import target_tensors
from transfer.feature_cache import TrunkCache
from transfer.training.epoch import TrainingData
from transfer.training.penalties.pretrained import PretrainedCopy


@pytest.mark.parametrize("policy", ["partial:1", "full", "linear_probe"])
def test_the_copy_gives_the_pretrained_features_at_every_cut(
    taught: Callable[..., Any], data: TrainingData, policy: str
) -> None:
    model, plan = taught(policy)
    start = PretrainedCopy(model, data.train, target_tensors(data.table, model))
    model.freeze(plan.phases[0])
    feed = TrunkCache().feed(model, data.table.paths, data.digests, batch_size=10, workers=1)
    start.attach(model, feed)
    model.eval()
    with torch.no_grad():
        before = torch.cat([model.features(activation) for _, activation in feed.batches(data.train)])
        for p in model.parameters():
            if p.requires_grad:
                p.add_(0.1)
    rows, features = start.pooled()
    assert rows.tolist() == data.train.tolist()
    assert torch.equal(features, before)
    assert not any(p.requires_grad for p in start.model.parameters())
    model.train()
    assert not start.model.training
