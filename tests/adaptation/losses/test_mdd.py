import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from transfer.adaptation.losses.base import ramp_up
from transfer.adaptation.losses.mdd import MDD


def make(**options: float) -> MDD:
    torch.manual_seed(0)
    return MDD(5, 4, hidden=16, **options)


def softmax(row: list[float]) -> list[float]:
    powers = [math.exp(v - max(row)) for v in row]
    return [v / sum(powers) for v in powers]


@pytest.mark.parametrize("margin", [1.0, 4.0])
def test_the_loss_against_the_loop(margin: float, draw: Callable) -> None:
    mdd, batch = make(margin=margin), draw(1)
    agree, differ = [], []
    for x, logits, target in zip(batch.features, batch.logits.tolist(), batch.target.tolist(), strict=True):
        said = softmax(mdd.adversary(x).tolist())[logits.index(max(logits))]
        (differ if target else agree).append(-math.log(1 - said) if target else -math.log(said))
    wanted = margin * sum(agree) / len(agree) + sum(differ) / len(differ)
    assert mdd(batch).item() == pytest.approx(wanted, rel=1e-5)


def test_gradients_are_finite(survives: Callable) -> None:
    survives(make())


def test_a_confident_adversary_has_the_expected_loss(draw: Callable) -> None:
    mdd, batch = make(), draw()
    said = batch.logits.argmax(1)
    mdd.adversary = torch.nn.Identity()  # so that features are its logits
    loud = (300 * F.one_hot(said, 4).float()).requires_grad_()
    loss = mdd(replace(batch, features=loud))  # 1 - softmax is 3 exp(-300): no float32 holds it
    loss.backward()
    assert loss.item() == pytest.approx(300 - math.log(3), rel=1e-5)
    assert bool(loud.grad[batch.target].any())


@pytest.mark.parametrize("reach", [0.1, 1.0])
def test_the_adversary_descends_while_features_climb(reach: float, draw: Callable) -> None:
    mdd, batch = make(reach=reach), draw(progress=0.1)
    out, said = mdd.adversary(batch.features), batch.logits.argmax(1)
    rest = 1 - out.softmax(1).gather(1, said[:, None]).squeeze(1)
    plain = 4 * F.cross_entropy(out[~batch.target], said[~batch.target]) - rest[batch.target].log().mean()
    parameters = [batch.features, *mdd.parameters()]
    of_features, *own = torch.autograd.grad(plain, parameters)
    got, *learnt = torch.autograd.grad(mdd(batch), parameters)
    assert torch.allclose(got, -reach * ramp_up(0.1) * of_features, atol=1e-6)
    for a, b in zip(learnt, own, strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_the_classifier_gets_no_gradient(draw: Callable) -> None:
    batch = draw()
    make()(batch).backward()
    assert batch.logits.grad is None
