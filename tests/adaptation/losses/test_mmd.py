import itertools
import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from transfer.adaptation.losses.base import Batch
from transfer.adaptation.losses.mmd import DAN, JAN, DeepCORAL, covariance, gaussian_kernels, squared_mmd

Rows = list[list[float]]


def apart(a: list[float], b: list[float]) -> float:
    return sum((u - v) ** 2 for u, v in zip(a, b, strict=True))


def kernel(x: Rows, widths: tuple[float, ...]) -> Rows:
    pairs = list(itertools.permutations(range(len(x)), 2))
    mean = sum(apart(x[i], x[j]) for i, j in pairs) / len(pairs)
    return [[sum(math.exp(-apart(a, b) / (2 * w * mean)) for w in widths) / len(widths) for b in x] for a in x]


def mmd(k: Rows, target: list[bool]) -> float:
    """Return Gretton et al.'s eq. 3, term by term."""
    source, goal = ([i for i, t in enumerate(target) if t is side] for side in (False, True))
    m, n = len(source), len(goal)
    within = sum(k[i][j] for i in source for j in source if i != j) / (m * (m - 1))
    beyond = sum(k[i][j] for i in goal for j in goal if i != j) / (n * (n - 1))
    return within + beyond - 2 * sum(k[i][j] for i in source for j in goal) / (m * n)


WIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)


@pytest.mark.parametrize("seed", range(3))
def test_dan_against_the_loop(seed: int, draw: Callable) -> None:
    batch = draw(seed)
    wanted = mmd(kernel(batch.features.tolist(), WIDTHS), batch.target.tolist())
    assert DAN()(batch).item() == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_jan_against_the_loop(seed: int, draw: Callable) -> None:
    batch = draw(seed)
    of_features = kernel(batch.features.tolist(), WIDTHS)
    of_classes = kernel(batch.logits.softmax(1).tolist(), (1.0,))
    product = [[a * b for a, b in zip(*rows, strict=True)] for rows in zip(of_features, of_classes, strict=True)]
    assert JAN()(batch).item() == pytest.approx(mmd(product, batch.target.tolist()), abs=1e-6)


@pytest.mark.parametrize("objective", [DAN(), JAN()], ids=["dan", "jan"])
def test_gradients_are_finite(objective: DAN | JAN, survives: Callable) -> None:
    survives(objective)


@pytest.mark.parametrize("objective", [DAN(), JAN()], ids=["dan", "jan"])
def test_identical_rows_have_zero_loss_and_gradient(objective: DAN | JAN) -> None:
    features = torch.full((8, 5), 3.7).requires_grad_()
    loss = objective(Batch(features, torch.full((8, 4), 0.3), torch.full((8,), -1), torch.arange(8) > 2))
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-5)
    assert float(features.grad.abs().max()) < 1e-3


@settings(max_examples=20)
@given(st.integers(0, 1000), st.floats(0.01, 100), st.floats(-5, 5))
def test_dan_is_invariant_to_order_scale_translation_and_swapped_domains(
    draw: Callable, seed: int, scale: float, place: float
) -> None:
    batch = draw(seed)
    value = DAN()(batch).item()
    order = torch.randperm(13, generator=torch.Generator().manual_seed(seed))
    shuffled = replace(batch, features=batch.features[order], target=batch.target[order])
    assert DAN()(shuffled).item() == pytest.approx(value, abs=1e-5)
    assert DAN()(replace(batch, features=scale * (batch.features + place))).item() == pytest.approx(value, abs=1e-4)
    assert DAN()(replace(batch, target=~batch.target)).item() == pytest.approx(value, abs=1e-5)


def test_no_gradient_flows_through_the_bandwidth() -> None:
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    gaussian_kernels(x, (1.0,)).sum().backward()
    mean = torch.cdist(x, x).detach().square().sum() / 12

    def total(rows: torch.Tensor) -> float:
        return float(torch.exp(-torch.cdist(rows, rows).square() / (2 * mean)).sum())

    step = torch.zeros(4, 3, dtype=torch.float64)
    step[1, 2] = 1e-4
    slope = (total(x.detach() + step) - total(x.detach() - step)) / 2e-4
    assert x.grad[1, 2].item() == pytest.approx(slope, rel=1e-4)


def test_alike_domains_are_at_zero_in_expectation() -> None:
    # rows of one distribution: every way of dealing them out to two domains is as likely, and the mean is exactly 0
    k = gaussian_kernels(torch.randn(7, 3, generator=torch.Generator().manual_seed(0)))
    values = [
        squared_mmd(k, torch.tensor([i in dealt for i in range(7)])) for dealt in itertools.combinations(range(7), 3)
    ]
    assert torch.stack(values).mean().item() == pytest.approx(0, abs=1e-6)
    assert float(torch.stack(values).abs().max()) > 0.05


def test_a_shift_is_seen_and_descended() -> None:
    g = torch.Generator().manual_seed(0)
    features, target = torch.randn(60, 4, generator=g), torch.arange(60) >= 30
    alike = DAN()(Batch(features, features, torch.full((60,), -1), target)).item()
    features = (features + 2.0 * target[:, None]).requires_grad_()
    batch = Batch(features, features.detach(), torch.full((60,), -1), target)
    loss = DAN()(batch)
    assert loss.item() > 0.1 > 3 * abs(alike)
    loss.backward()
    pull = features.grad[target].sum(0)
    assert bool((pull > 0).all())  # descent moves the target back


def test_jan_detects_swapped_classes(draw: Callable) -> None:
    g = torch.Generator().manual_seed(0)
    half = torch.randn(20, 3, generator=g)
    features, logits = torch.cat([half, half]), 3 * torch.cat([half, -half])
    batch = Batch(features, logits, torch.full((40,), -1), torch.arange(40) >= 20)
    straight = replace(batch, logits=3 * features)
    assert DAN()(batch).item() == DAN()(straight).item()
    assert JAN()(batch).item() > JAN()(straight).item() + 0.1


def test_the_known_answer_to_a_shift(learn_shifted: Callable) -> None:
    accuracy, along = learn_shifted(lambda width, classes, _: DAN())
    assert accuracy > 0.97
    assert along < 0.2


def covariance_by_loop(rows: list[list[float]]) -> list[list[float]]:
    """Return Sun and Saenko's eq. 2: (DᵀD - (1ᵀD)ᵀ(1ᵀD) / n) / (n - 1)."""
    n, width = len(rows), len(rows[0])
    total = [sum(row[a] for row in rows) for a in range(width)]
    return [
        [(sum(row[a] * row[b] for row in rows) - total[a] * total[b] / n) / (n - 1) for b in range(width)]
        for a in range(width)
    ]


@pytest.mark.parametrize("seed", range(3))
def test_deep_coral_the_loss_against_the_loop(seed: int, draw: Callable) -> None:
    batch = draw(seed)
    source, target = (covariance_by_loop(rows.tolist()) for rows in batch.split(batch.features))
    squared = sum((a - b) ** 2 for x, y in zip(source, target, strict=True) for a, b in zip(x, y, strict=True))
    assert DeepCORAL()(batch).item() == pytest.approx(squared / (4 * 5**2), rel=1e-4)


def test_deep_coral_gradients_are_finite(survives: Callable) -> None:
    survives(DeepCORAL())


def test_deep_coral_a_single_row_has_no_covariance() -> None:
    assert not bool(covariance(torch.randn(1, 4)).any())


@settings(max_examples=25)
@given(st.integers(0, 1000), st.floats(-10, 10), st.floats(-10, 10))
def test_deep_coral_is_invariant_to_translation(draw: Callable, seed: int, one: float, other: float) -> None:
    batch = draw(seed)
    moved = replace(batch, features=batch.features + torch.where(batch.target, one, other)[:, None])
    assert DeepCORAL()(moved).item() == pytest.approx(DeepCORAL()(batch).item(), rel=1e-3, abs=1e-6)


def test_deep_coral_turning_both_domains_changes_nothing(draw: Callable) -> None:
    batch = draw()
    turn = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(0)))[0]
    assert DeepCORAL()(replace(batch, features=batch.features @ turn)).item() == pytest.approx(
        DeepCORAL()(batch).item(), rel=1e-4
    )


def test_deep_coral_descent_brings_the_targets_spread_to_the_sources(draw: Callable) -> None:
    batch = draw(source=100, target=100)
    features = (batch.features.detach() * torch.where(batch.target, 3.0, 1.0)[:, None]).requires_grad_()
    optimizer = torch.optim.SGD([features], 30.0)
    for _ in range(150):
        optimizer.zero_grad()
        DeepCORAL()(replace(batch, features=features)).backward()
        optimizer.step()
    source, target = (torch.cov(rows.T) for rows in batch.split(features.detach()))
    assert torch.allclose(source, target, atol=0.05)
