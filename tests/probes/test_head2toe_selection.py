"""The group lasso against its optimality conditions and a naive solution."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from transfer.probes import head2toe
from transfer.probes.head2toe import OutputLoss, rank_features, shrink_columns, solve_group_lasso

N, WIDTH, CLASSES = 120, 40, 4


def draw(n: int = N, width: int = WIDTH, matter: tuple[int, ...] = (3, 17, 30), seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return features, few of which depend on the class, and the classes."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, width, generator=g)
    weight = torch.randn(len(matter), CLASSES, generator=g)
    return x, (x[:, list(matter)] @ (3 * weight)).argmax(1)


def cross_entropy(y: Tensor) -> OutputLoss:
    return lambda out: F.cross_entropy(out, y)


def gradients(x: Tensor, loss: OutputLoss, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    weight, bias = weight.clone().requires_grad_(), bias.clone().requires_grad_()
    loss(x @ weight.T + bias).backward()
    assert weight.grad is not None
    assert bias.grad is not None
    return weight.grad, bias.grad


@given(
    columns=st.lists(st.lists(st.floats(-5, 5, width=32), min_size=3, max_size=3), min_size=1, max_size=6),
    by=st.floats(0, 6, width=32),
)
def test_shrink_columns_is_the_proximal_operator(columns: list[list[float]], by: float) -> None:
    given = torch.tensor(columns).T
    got = shrink_columns(given, by).T.tolist()
    for column, short in zip(columns, got, strict=True):
        length = float(np.linalg.norm(column))
        expected = [0.0] * 3 if length <= by else [value * (1 - by / length) for value in column]
        np.testing.assert_allclose(short, expected, atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 99), by=st.floats(0.1, 2))
def test_nothing_near_is_cheaper_than_shrink_columns(seed: int, by: float) -> None:
    """It minimises ||v - w||^2 / 2 + by * sum_i ||v_i||."""
    g = torch.Generator().manual_seed(seed)
    weight = torch.randn(3, 5, generator=g)

    def cost(v: Tensor) -> float:
        return float((v - weight).square().sum() / 2 + by * v.norm(dim=0).sum())

    best = shrink_columns(weight, by)
    for _ in range(20):
        assert cost(best) <= cost(best + 0.05 * torch.randn(3, 5, generator=g)) + 1e-6


@pytest.mark.parametrize("penalty", [0.02, 0.05, 0.1])
@pytest.mark.parametrize("kind", ["softmax", "binary", "regression", "weighted"])
def test_the_solution_meets_the_conditions_of_optimality(kind: str, penalty: float) -> None:
    x, y = draw()
    g = torch.Generator().manual_seed(1)
    share = torch.rand(N, generator=g)
    loss: OutputLoss = {
        "softmax": cross_entropy(y),
        "binary": lambda out: F.binary_cross_entropy_with_logits(out[:, 0], (y > 1).float()),
        "regression": lambda out: F.mse_loss(out[:, 0], x[:, 3] - 2 * x[:, 5] + 4),
        "weighted": lambda out: (F.cross_entropy(out, y, reduction="none") * share).sum() / share.sum(),
    }[kind]
    weight, bias = solve_group_lasso(
        x, loss, CLASSES if kind in ("softmax", "weighted") else 1, penalty, tolerance=1e-3
    )
    gradient, bias_gradient = gradients(x, loss, weight, bias)
    assert bias_gradient.abs().max() < 0.01 * penalty
    zero = weight.norm(dim=0) == 0
    assert gradient[:, zero].norm(dim=0).max() <= 1.01 * penalty
    unit = weight[:, ~zero] / weight[:, ~zero].norm(dim=0)
    assert (gradient[:, ~zero] + penalty * unit).norm(dim=0).max() <= 0.01 * penalty
    assert 0 < int(zero.sum()) < WIDTH


def test_plain_gradient_steps_find_the_same_minimum() -> None:
    x, y = draw()
    loss, penalty = cross_entropy(y), 0.05
    weight, bias = torch.zeros(CLASSES, WIDTH), torch.zeros(CLASSES)
    for _ in range(5000):
        gradient, bias_gradient = gradients(x, loss, weight, bias)
        weight, bias = shrink_columns(weight - 0.3 * gradient, 0.3 * penalty), bias - 0.3 * bias_gradient
    ours, our_bias = solve_group_lasso(x, loss, CLASSES, penalty, tolerance=1e-3)
    costs = [float(loss(x @ w.T + b) + penalty * w.norm(dim=0).sum()) for w, b in ((weight, bias), (ours, our_bias))]
    assert costs[1] == pytest.approx(costs[0], rel=1e-4)
    np.testing.assert_allclose(ours.numpy(), weight.numpy(), atol=2e-2)


def test_momentum_with_restarts_takes_far_fewer_passes_than_plain_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain proximal steps, each as long as the curvature of the softmax allows, up to the same tolerance."""
    x, y = draw()
    x = x * torch.linspace(0.3, 3, WIDTH)
    loss, penalty = cross_entropy(y), 0.01
    passes: list[int] = []
    gradient = head2toe._gradient
    monkeypatch.setattr(head2toe, "_gradient", lambda *how: (passes.append(1), gradient(*how))[1])
    solve_group_lasso(x, loss, CLASSES, penalty)
    with_ones = torch.cat([x, torch.ones(len(x), 1)], 1)
    step = len(x) / (0.5 * float(torch.linalg.matrix_norm(with_ones, 2) ** 2))
    weight, bias = torch.zeros(CLASSES, WIDTH), torch.zeros(CLASSES)
    plain, moved = 0, math.inf
    while moved > head2toe.GRADIENT_TOLERANCE * penalty and plain < 20 * len(passes):
        in_weight, in_bias = gradients(x, loss, weight, bias)
        new, new_bias = shrink_columns(weight - step * in_weight, step * penalty), bias - step * in_bias
        moved = float(torch.cat([(new - weight).norm(dim=0), (new_bias - bias).abs()]).max()) / step
        weight, bias, plain = new, new_bias, plain + 1
    assert 15 * len(passes) < plain  # 179 and 3579


def test_few_features_are_solved_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three of 200 matter: the others that ever take part are about as many as the first round lets in."""
    x, y = draw(300, 200, (7, 101, 163))
    widths: list[int] = []
    run = head2toe._run_fista
    monkeypatch.setattr(head2toe, "_run_fista", lambda x, *how: (widths.append(x.shape[1]), run(x, *how))[1])
    weight, _ = solve_group_lasso(x, cross_entropy(y), CLASSES, 0.05)
    assert 3 <= int((weight != 0).any(0).sum()) <= max(widths) <= 2 * head2toe.FIRST_ACTIVE_FEATURES


def test_it_is_solved_on_the_device_of_the_features() -> None:
    x, y = draw()
    expected = solve_group_lasso(x, cross_entropy(y), CLASSES, 0.05)
    with torch.device("meta"):  # of tensors that are made without a device
        found = solve_group_lasso(x, cross_entropy(y), CLASSES, 0.05)
    assert all(map(torch.equal, found, expected))


def test_a_larger_penalty_selects_fewer_features() -> None:
    x, y = draw()
    left = [
        int((solve_group_lasso(x, cross_entropy(y), CLASSES, p)[0] != 0).any(0).sum())
        for p in (0.01, 0.03, 0.1, 0.3, 9)
    ]
    assert left == sorted(left, reverse=True)
    assert left[0] > left[2] > left[-1] == 0


@pytest.mark.parametrize("seed", range(3))
def test_three_features_of_two_hundred_are_found(seed: int) -> None:
    matter = (7, 101, 163)
    x, y = draw(300, 200, matter, seed)
    assert set(rank_features(x, cross_entropy(y), CLASSES).topk(3).indices.tolist()) == set(matter)


def test_features_without_weight_are_ranked_by_the_penalty_at_which_they_get_some() -> None:
    x, y = draw()
    x[:, 11] = 0.0
    order = rank_features(x, cross_entropy(y), CLASSES)
    out, loss = order <= 0, cross_entropy(y)
    assert 5 < int(out.sum()) < WIDTH
    assert order.argmin() == 11  # constant: none, whatever the penalty
    assert order[11] == -1
    assert len(order[out].unique()) == int(out.sum())
    some = out.nonzero().squeeze(1)
    best, last = some[order[some].argmax()], some[order[some].argsort()[1]]
    for penalty in np.geomspace(0.2, 1e-4, 30):  # the best of them gets weight no later than the last
        weight = solve_group_lasso(x, loss, CLASSES, float(penalty))[0].norm(dim=0)
        assert not (weight[last] > 0 and weight[best] == 0)
        if weight[last] > 0:
            break
    assert weight[best] > 0


@pytest.mark.parametrize("x", [torch.zeros(20, 5), draw(20, 5, (1, 2, 3))[0]])
def test_constant_labels_give_no_feature_weight(x: Tensor) -> None:
    order = rank_features(x, cross_entropy(torch.ones(20, dtype=torch.long)), CLASSES)
    assert bool((order <= 0).all())


def test_ranking_is_deterministic() -> None:
    x, y = draw()
    assert torch.equal(rank_features(x, cross_entropy(y), CLASSES), rank_features(x, cross_entropy(y), CLASSES))
