import math
from collections.abc import Callable

import pytest
import torch

from transfer.adaptation.losses.adda import ADDA
from transfer.adaptation.losses.adversarial import told_apart
from transfer.adaptation.losses.base import ramp


def make(width: int = 5) -> ADDA:
    torch.manual_seed(0)
    return ADDA(width)


@pytest.mark.parametrize("progress", [0.0, 0.15, 1.0])
def test_the_loss_against_the_loop(progress: float, draw: Callable) -> None:
    adda, batch = make(), draw(1, progress=progress)
    source, target, fooled = [], [], []
    for row, is_target in zip(batch.features.detach(), batch.target.tolist(), strict=True):
        d = 1 / (1 + math.exp(-adda.domain(row[None]).item()))  # that it is the target's
        if is_target:
            target.append(-math.log(d))
            fooled.append(-math.log(1 - d))  # eq. 7: the label of the source
        else:
            source.append(-math.log(1 - d))
    wanted = (sum(source) / len(source) + sum(target) / len(target)) / 2
    wanted += (2 / (1 + math.exp(-10 * progress)) - 1) * sum(fooled) / len(fooled)
    assert adda(batch).item() == pytest.approx(wanted, rel=1e-5)


def test_gradients_are_finite(survives: Callable) -> None:
    survives(make())


def test_only_the_targets_features_move(draw: Callable) -> None:
    adda, batch = make(), draw()
    adda(batch).backward()
    assert batch.logits.grad is None
    source, target = batch.split(batch.features.grad)
    assert not bool(source.any())
    assert bool(target.any(1).all())
    with torch.no_grad():  # along the descent they are taken for the target's less
        before = adda.domain(batch.features[batch.target]).mean()
        after = adda.domain((batch.features - 0.1 * batch.features.grad)[batch.target]).mean()
    assert after < before


def test_the_discriminator_learns_nothing_from_being_fooled(draw: Callable) -> None:
    adda, batch = make(), draw(progress=1.0)
    wanted = torch.autograd.grad(told_apart(adda.domain(batch.features), batch.target), list(adda.parameters()))
    adda(batch).backward()
    for parameter, gradient in zip(adda.parameters(), wanted, strict=True):
        assert torch.equal(parameter.grad, gradient)


def test_features_wait_for_the_ramp(draw: Callable) -> None:
    adda, batch = make(), draw(progress=0.0)
    adda(batch).backward()
    assert ramp(0.0) == 0.0
    assert not bool(batch.features.grad.any())
    assert all(bool(p.grad.any()) for p in adda.parameters())


def test_the_known_answer_to_a_shift(learn_shifted: Callable) -> None:
    accuracy, along = learn_shifted(lambda width, classes, _: ADDA(width))
    assert accuracy > 0.97
    assert along < 0.15
