import math
from collections.abc import Callable

import pytest
import torch
from torch.nn import functional as F

from transfer.adaptation.losses.base import ramp_up
from transfer.adaptation.losses.mcd import MCD

CLASSES = 4


def make(width: int = 5, classes: int = CLASSES) -> MCD:
    torch.manual_seed(0)
    return MCD(width, classes, hidden=16)


def softmax(row: list[float]) -> list[float]:
    powers = [math.exp(v - max(row)) for v in row]
    return [v / sum(powers) for v in powers]


@pytest.mark.parametrize("seed", range(2))
def test_the_loss_against_the_loop(seed: int, draw: Callable) -> None:
    mcd, batch = make(), draw(seed)
    learnt, apart = [], []
    for x, label, target in zip(batch.features, batch.labels.tolist(), batch.target.tolist(), strict=True):
        p, q = softmax(mcd.first(x).tolist()), softmax(mcd.second(x).tolist())
        if label >= 0:
            learnt.append(-math.log(p[label]) - math.log(q[label]))  # eq. 3
        if target:
            apart.append(sum(abs(a - b) for a, b in zip(p, q, strict=True)) / CLASSES)  # eq. 1
    assert len(learnt) == 8
    wanted = sum(learnt) / len(learnt) - sum(apart) / len(apart)
    assert mcd(batch).item() == pytest.approx(wanted, rel=1e-5)


def test_gradients_are_finite(survives: Callable) -> None:
    survives(make())


def test_classifiers_maximise_the_discrepancy_that_features_minimise(draw: Callable) -> None:
    mcd, batch = make(), draw(progress=0.1)
    rows = batch.labels >= 0
    learnt = sum(F.cross_entropy(one(batch.features[rows]), batch.labels[rows]) for one in (mcd.first, mcd.second))
    p, q = (one(batch.features[batch.target]).softmax(1) for one in (mcd.first, mcd.second))
    apart = (p - q).abs().mean()
    of_learnt = torch.autograd.grad(learnt, batch.features, retain_graph=True)[0]
    of_apart = torch.autograd.grad(apart, batch.features, retain_graph=True)[0]
    own = torch.autograd.grad(learnt - apart, list(mcd.parameters()))
    mcd(batch).backward()
    assert torch.allclose(batch.features.grad, of_learnt + ramp_up(0.1) * of_apart, atol=1e-6)
    for parameter, slope in zip(mcd.parameters(), own, strict=True):
        assert torch.allclose(parameter.grad, slope, atol=1e-6)


def test_classifiers_start_apart() -> None:
    mcd = make()
    assert not torch.equal(mcd.first[0].weight, mcd.second[0].weight)


def test_the_known_answer_to_a_small_shift(learn_shifted: Callable) -> None:
    small = (0.8, 1.0)
    accuracy, _ = learn_shifted(lambda width, classes, _: MCD(width, classes), small)
    assert learn_shifted(None, small)[0] < 0.9
    assert accuracy > 0.96
