"""Losses are recomputed row by row; gradients are compared with those of the loss that is not reversed."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from transfer.adaptation.losses.adversarial import ADDA, CDAN, DANN, domain_discrimination_loss
from transfer.adaptation.losses.base import AdaptationLoss, Batch, ramp_up

WIDTH, CLASSES = 5, 4

MAKES = {
    "dann": lambda width, classes, _: DANN(width),
    "cdan": lambda width, classes, _: CDAN(width, classes),
    "cdan_e": lambda width, classes, _: CDAN(width, classes, weighted=True),
}
named = pytest.mark.parametrize("name", MAKES)


def make(name: str) -> AdaptationLoss:
    torch.manual_seed(0)
    return MAKES[name](WIDTH, CLASSES, None)


def softmax(logits: list[float]) -> list[float]:
    most = max(logits)
    powers = [math.exp(v - most) for v in logits]
    return [v / sum(powers) for v in powers]


def domain_loss(domain: nn.Module, inputs: list[list[float]], target: list[bool], weights: list[float]) -> float:
    """Return Ganin et al.'s eq. 9 without λ, halved: both domains' means of -log of what their own label gets."""
    total = 0.0
    for side in (False, True):
        rows = [i for i, t in enumerate(target) if t is side]
        losses = []
        for i in rows:
            d = 1 / (1 + math.exp(-domain(torch.tensor([inputs[i]])).item()))
            losses.append(-math.log(d if side else 1 - d))
        of_side = [weights[i] for i in rows]
        total += sum(w * v for w, v in zip(of_side, losses, strict=True)) / sum(of_side)
    return total / 2


def naive(name: str, objective: AdaptationLoss, batch: Batch) -> float:
    inputs, weights = [], []
    for f, logits in zip(batch.features.tolist(), batch.logits.tolist(), strict=True):
        p = softmax(logits)
        inputs.append(f if name == "dann" else [a * b for a in f for b in p])
        sure = math.exp(sum(v * math.log(v) for v in p))
        weights.append(1 + sure if name == "cdan_e" else 1.0)
    return domain_loss(objective.domain, inputs, batch.target.tolist(), weights)


@named
@pytest.mark.parametrize("seed", [0, 1])
def test_the_loss_against_the_loop(name: str, seed: int, draw: Callable) -> None:
    objective, batch = make(name), draw(seed)
    assert objective(batch).item() == pytest.approx(naive(name, objective, batch), rel=1e-5)


@named
def test_gradients_are_finite(name: str, survives: Callable) -> None:
    survives(make(name))


def plain(name: str, objective: AdaptationLoss, batch: Batch) -> Tensor:
    """Return the same loss with nothing reversed."""
    p = batch.logits.detach().softmax(1)
    inputs = batch.features if name == "dann" else torch.einsum("nf,nc->nfc", batch.features, p).flatten(1)
    weights = 1 + torch.exp((p * p.log()).sum(1)) if name == "cdan_e" else None
    return domain_discrimination_loss(objective.domain(inputs), batch.target, weights)


@named
@pytest.mark.parametrize("progress", [0.0, 0.1, 1.0])
def test_the_discriminator_descends_while_features_climb(name: str, progress: float, draw: Callable) -> None:
    objective, batch = make(name), draw(2, progress=progress)
    parameters = [batch.features, *objective.parameters()]
    wanted, *own = torch.autograd.grad(plain(name, objective, batch), parameters)
    got, *learnt = torch.autograd.grad(objective(batch), parameters)
    for a, b in zip(learnt, own, strict=True):
        assert torch.allclose(a, b, atol=1e-7)
    assert float(wanted.abs().max()) > 1e-4
    assert torch.allclose(got, -ramp_up(progress) * wanted, atol=1e-7)


@named
def test_class_probabilities_are_only_a_condition(name: str, draw: Callable) -> None:
    batch = draw()
    make(name)(batch).backward()
    assert batch.logits.grad is None


@named
def test_domains_weigh_the_same_whatever_their_rows(name: str, draw: Callable) -> None:
    batch, objective = draw(), make(name)
    rows = torch.cat([torch.arange(13), *[(~batch.target).nonzero().flatten()] * 3])
    more = Batch(batch.features[rows], batch.logits[rows], batch.labels[rows], batch.target[rows], batch.progress)
    assert objective(more).item() == pytest.approx(objective(batch).item(), rel=1e-5)


def test_a_blind_discriminator_loses_log_2() -> None:
    assert domain_discrimination_loss(torch.zeros(5, 1), torch.arange(5) > 2).item() == pytest.approx(math.log(2))


def test_the_map_is_exact_up_to_4096_products_and_projected_above() -> None:
    exact, above = CDAN(128, 32), CDAN(129, 32)
    assert not exact.projects
    assert not list(exact.buffers())
    assert exact.multilinear_map(torch.randn(2, 128), torch.rand(2, 32)).shape == (2, 4096)
    assert above.multilinear_map(torch.randn(2, 129), torch.rand(2, 32)).shape == (2, 1024)
    assert {"from_features", "from_classes"} <= set(above.state_dict())


def test_projections_keep_inner_products() -> None:
    # Long et al. 2018, theorem 1: <T(f, g), T(f', g')> is <f, f'> <g, g'> in expectation
    torch.manual_seed(0)
    cdan = CDAN(200, 30)
    f, p = torch.randn(8, 200), torch.randn(8, 30).softmax(1)
    f[1::2] = f[::2] + 0.3 * torch.randn(4, 200)
    mapped = cdan.multilinear_map(f, p)
    wanted = (f @ f.T) * (p @ p.T)
    size = wanted.diagonal().sqrt()
    assert float(((mapped @ mapped.T - wanted) / (size[:, None] * size)).abs().max()) < 0.35


def test_without_an_adaptation_loss_the_shift_remains(learn_shifted: Callable) -> None:
    accuracy, along = learn_shifted(None)
    assert accuracy < 0.6
    assert along > 0.4


@named
def test_the_known_answer_to_a_shift(name: str, learn_shifted: Callable) -> None:
    accuracy, along = learn_shifted(MAKES[name])
    assert accuracy > 0.97
    assert along < 0.1


def make_adda(width: int = 5) -> ADDA:
    torch.manual_seed(0)
    return ADDA(width)


@pytest.mark.parametrize("progress", [0.0, 0.15, 1.0])
def test_adda_the_loss_against_the_loop(progress: float, draw: Callable) -> None:
    adda, batch = make_adda(), draw(1, progress=progress)
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


def test_adda_gradients_are_finite(survives: Callable) -> None:
    survives(make_adda())


def test_adda_only_the_targets_features_move(draw: Callable) -> None:
    adda, batch = make_adda(), draw()
    adda(batch).backward()
    assert batch.logits.grad is None
    source, target = batch.split(batch.features.grad)
    assert not bool(source.any())
    assert bool(target.any(1).all())
    with torch.no_grad():  # along the descent they are taken for the target's less
        before = adda.domain(batch.features[batch.target]).mean()
        after = adda.domain((batch.features - 0.1 * batch.features.grad)[batch.target]).mean()
    assert after < before


def test_adda_the_discriminator_learns_nothing_from_being_fooled(draw: Callable) -> None:
    adda, batch = make_adda(), draw(progress=1.0)
    wanted = torch.autograd.grad(
        domain_discrimination_loss(adda.domain(batch.features), batch.target), list(adda.parameters())
    )
    adda(batch).backward()
    for parameter, gradient in zip(adda.parameters(), wanted, strict=True):
        assert torch.equal(parameter.grad, gradient)


def test_adda_features_get_no_gradient_at_the_start(draw: Callable) -> None:
    adda, batch = make_adda(), draw(progress=0.0)
    adda(batch).backward()
    assert ramp_up(0.0) == 0.0
    assert not bool(batch.features.grad.any())
    assert all(bool(p.grad.any()) for p in adda.parameters())


def test_adda_the_known_answer_to_a_shift(learn_shifted: Callable) -> None:
    accuracy, along = learn_shifted(lambda width, classes, _: ADDA(width))
    assert accuracy > 0.97
    assert along < 0.15
