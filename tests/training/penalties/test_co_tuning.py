"""How old and new classes go together, and the cross-entropy to it, by loops."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from transfer.config.train import RegulariseConfig
from transfer.errors import TransferError
from transfer.evaluation.predictions import target_tensors
from transfer.feature_cache import TrunkCache
from transfer.training.epoch import TrainingData
from transfer.training.mixing import Labels
from transfer.training.penalties.co_tuning import CoTuning, class_relation, find_original_classifier
from transfer.training.penalties.penalty import PenaltyInputs
from transfer.training.penalties.pretrained import PretrainedCopy
from transfer.training.train import train


def test_the_relation_is_the_mean_prediction_for_each_object(taught: Callable[..., Any], data: TrainingData) -> None:
    model, plan = taught("partial:1")
    torch.manual_seed(0)
    original = nn.Linear(model.backbone.width, 5)
    labels = target_tensors(data.table, model)
    labels["object"] = labels["object"].clone()
    labels["object"][data.train[::5]] = -1
    labels["object"][labels["object"] == 2] = 1  # an object without images
    start = PretrainedCopy(model, data.train, labels)
    model.freeze(plan.phases[0])
    start.attach(model, TrunkCache().feed(model, data.table.paths, data.digests, batch_size=7, workers=1))
    got = class_relation(start, original, 3)
    sums, counts = torch.zeros(3, 5), [0, 0, 0]
    for rows, activation in start.batches():
        for row, features in zip(rows.tolist(), start.features(activation), strict=True):
            o = int(labels["object"][row])
            if o >= 0:
                sums[o] += original(features).detach().softmax(0)
                counts[o] += 1
    assert counts[2] == 0
    assert not got[2].any()
    for o in (0, 1):
        assert torch.allclose(got[o], sums[o] / counts[o], atol=1e-6)
        assert float(got[o].sum()) == pytest.approx(1.0, rel=1e-5)


def test_it_is_the_cross_entropy_to_the_relation_by_shares() -> None:
    torch.manual_seed(0)
    original, together = nn.Linear(4, 5).requires_grad_(False), torch.rand(3, 5).softmax(1)
    features = torch.randn(4, 4, requires_grad=True)
    one, two = torch.tensor([0, -1, 2, 1]), torch.tensor([1, 1, -1, 0])
    parts = (Labels({"object": one}, share=0.7), Labels({"object": two}, share=0.3))
    loss = CoTuning(original, together, 2.0)(PenaltyInputs(None, features, features, parts))  # type: ignore[arg-type]
    answers = original(features).detach().softmax(1)
    expected = 0.0
    for labels, share in ((one, 0.7), (two, 0.3)):
        each = []
        for i, o in enumerate(labels.tolist()):
            if o >= 0:
                each.append(-sum(float(together[o, s]) * float(answers[i, s].log()) for s in range(5)))
        expected += share * sum(each) / len(each)
    assert loss.item() == pytest.approx(2 * expected, rel=1e-5)
    loss.backward()
    assert features.grad is not None
    assert original.weight.grad is None


def test_rows_without_an_object_have_zero_loss() -> None:
    features = torch.randn(2, 4, requires_grad=True)
    labels = (Labels({"object": torch.tensor([-1, -1])}),)
    loss = CoTuning(nn.Linear(4, 5), torch.rand(3, 5), 1.0)(PenaltyInputs(None, features, features, labels))  # type: ignore[arg-type]
    assert loss.item() == 0.0


def test_weights_without_a_classifier_are_refused(
    taught: Callable[..., Any], config: Callable, data: TrainingData
) -> None:
    with pytest.raises(TransferError, match="no linear classifier"):
        train(config(policy="partial:1", regularise=RegulariseConfig(co_tuning=1.0)))
    model, _ = taught("partial:1")
    with pytest.raises(TransferError, match=r"--co-tuning: test_resnet \(random\) has no original classifier"):
        find_original_classifier(PretrainedCopy(model, data.train, {}))
