import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from transfer.adaptation.losses.afn_bsp import AFN, BSP
from transfer.adaptation.losses.base import Batch

OBJECTIVES = {"afn": AFN(), "bsp": BSP(), "bsp_2": BSP(largest=2)}
named = pytest.mark.parametrize("name", OBJECTIVES)


@named
def test_gradients_are_finite(name: str, survives: Callable) -> None:
    survives(OBJECTIVES[name])


@pytest.mark.parametrize("step", [0.5, 1.0])
def test_afn_against_the_loop(step: float, draw: Callable) -> None:
    batch = draw()
    loss = AFN(step)(batch)
    assert loss.item() == pytest.approx(2 * step**2, rel=1e-5)
    loss.backward()
    sizes = {True: int(batch.target.sum()), False: int((~batch.target).sum())}
    for row, target, gradient in zip(
        batch.features.tolist(), batch.target.tolist(), batch.features.grad.tolist(), strict=True
    ):
        norm = math.sqrt(sum(v * v for v in row))
        assert gradient == pytest.approx([-2 * step * v / norm / sizes[target] for v in row], rel=1e-4, abs=1e-6)


def test_afn_lets_norms_grow_by_its_step(draw: Callable) -> None:
    batch = draw(source=4, target=4)
    before = batch.features.detach().norm(dim=1)
    AFN(0.5)(batch).backward()
    after = (batch.features - 2 * batch.features.grad).detach().norm(dim=1)  # 4 rows a domain, the mean of squares
    assert torch.allclose(after - before, torch.full_like(before, 0.5), atol=1e-5)


@pytest.mark.parametrize("largest", [1, 2])
def test_bsp_against_singular_values(largest: int, draw: Callable) -> None:
    batch = draw()
    wanted = 0.0
    for rows in batch.split(batch.features):
        x = rows.detach().double().numpy()
        eigenvalues = np.sort(np.linalg.eigvalsh(x.T @ x))[::-1]  # squared singular values
        wanted += sum(eigenvalues[:largest]) / len(x)
    assert BSP(largest)(batch).item() == pytest.approx(wanted, rel=1e-5)


def test_bsp_lowers_only_the_first_direction() -> None:
    features = torch.diag(torch.tensor([3.0, 2.0, 1.0])).repeat(2, 1).requires_grad_()
    BSP()(Batch(features, features.detach(), torch.full((6,), -1), torch.arange(6) > 2)).backward()
    wanted = torch.zeros(3, 3)
    wanted[0, 0] = 2 * 3.0 / 3  # of σ² / rows
    assert torch.allclose(features.grad, wanted.repeat(2, 1), atol=1e-6)


def test_bsp_does_not_depend_on_the_size_of_the_batch(draw: Callable) -> None:
    batch = draw()
    twice = Batch(*(torch.cat([x, x]) for x in (batch.features, batch.logits, batch.labels, batch.target)))
    assert BSP()(twice).item() == pytest.approx(BSP()(batch).item(), rel=1e-5)


@named
@settings(max_examples=20)
@given(st.integers(0, 1000))
def test_the_loss_is_invariant_to_signs_and_rotations(name: str, draw: Callable, seed: int) -> None:
    batch, objective = draw(seed), OBJECTIVES[name]
    turn = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(seed)))[0]
    value = objective(batch).item()
    for features in (-batch.features, batch.features @ turn):
        assert objective(replace(batch, features=features)).item() == pytest.approx(value, rel=1e-4)
