from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from transfer.adaptation.losses.moments import DeepCORAL, covariance


def loop(rows: list[list[float]]) -> list[list[float]]:
    """Return Sun and Saenko's eq. 2: (DᵀD - (1ᵀD)ᵀ(1ᵀD) / n) / (n - 1)."""
    n, width = len(rows), len(rows[0])
    total = [sum(row[a] for row in rows) for a in range(width)]
    return [
        [(sum(row[a] * row[b] for row in rows) - total[a] * total[b] / n) / (n - 1) for b in range(width)]
        for a in range(width)
    ]


@pytest.mark.parametrize("seed", range(3))
def test_the_loss_against_the_loop(seed: int, draw: Callable) -> None:
    batch = draw(seed)
    source, target = (loop(rows.tolist()) for rows in batch.split(batch.features))
    squared = sum((a - b) ** 2 for x, y in zip(source, target, strict=True) for a, b in zip(x, y, strict=True))
    assert DeepCORAL()(batch).item() == pytest.approx(squared / (4 * 5**2), rel=1e-4)


def test_gradients_are_finite(survives: Callable) -> None:
    survives(DeepCORAL())


def test_a_single_row_has_no_covariance() -> None:
    assert not bool(covariance(torch.randn(1, 4)).any())


@settings(max_examples=25)
@given(st.integers(0, 1000), st.floats(-10, 10), st.floats(-10, 10))
def test_shifts_of_either_domain_are_not_seen(draw: Callable, seed: int, one: float, other: float) -> None:
    batch = draw(seed)
    moved = replace(batch, features=batch.features + torch.where(batch.target, one, other)[:, None])
    assert DeepCORAL()(moved).item() == pytest.approx(DeepCORAL()(batch).item(), rel=1e-3, abs=1e-6)


def test_turning_both_domains_changes_nothing(draw: Callable) -> None:
    batch = draw()
    turn = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(0)))[0]
    assert DeepCORAL()(replace(batch, features=batch.features @ turn)).item() == pytest.approx(
        DeepCORAL()(batch).item(), rel=1e-4
    )


def test_descent_brings_the_targets_spread_to_the_sources(draw: Callable) -> None:
    batch = draw(source=100, target=100)
    features = (batch.features.detach() * torch.where(batch.target, 3.0, 1.0)[:, None]).requires_grad_()
    optimizer = torch.optim.SGD([features], 30.0)
    for _ in range(150):
        optimizer.zero_grad()
        DeepCORAL()(replace(batch, features=features)).backward()
        optimizer.step()
    source, target = (torch.cov(rows.T) for rows in batch.split(features.detach()))
    assert torch.allclose(source, target, atol=0.05)
