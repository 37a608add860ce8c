import math
import signal

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from transfer.probes import lbfgs
from transfer.probes.lbfgs import LinearProblem, compute_l2, make_dense_preconditioner, make_diagonal_preconditioner
from transfer.runtime import signals

WIDTH, CLASSES = 5, 3


def draw(n: int = 60, seed: int = 0) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, WIDTH, generator=g)
    return x, (x[:, :CLASSES] + torch.randn(n, CLASSES, generator=g)).argmax(1)


def problem(kind: str = "dense") -> LinearProblem:
    x, y = draw()
    preconditioner = make_dense_preconditioner(x) if kind == "dense" else make_diagonal_preconditioner(x.var(0))
    return LinearProblem(x, CLASSES, lambda out: F.cross_entropy(out, y), preconditioner)


def objective(weight: np.ndarray, bias: np.ndarray, l2: float) -> float:
    """Mean cross-entropy plus half of `l2` times the squared weights, row by row."""
    total, (rows, labels) = 0.0, draw()
    for x, y in zip(rows.double().numpy(), labels.tolist(), strict=True):
        logits = [float(w @ x) + float(b) for w, b in zip(weight, bias, strict=True)]
        total += math.log(sum(math.exp(v) for v in logits)) - logits[y]
    return total / len(rows) + l2 / 2 * float((weight**2).sum())


@pytest.mark.parametrize("kind", ["dense", "diagonal"])
@pytest.mark.parametrize("l2", [1.0, 0.03])
def test_no_neighbour_of_a_solution_is_better(l2: float, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lbfgs, "COARSE_TOLERANCE", 1e-5)
    solved = problem(kind)
    solved.minimise(l2)
    weight, bias = (part.double().numpy() for part in solved.layer())
    least = objective(weight, bias, l2)
    rng = np.random.default_rng(0)
    for size in (0.3, 0.05):
        for _ in range(20):
            moved = weight + size * rng.normal(size=weight.shape), bias + size * rng.normal(size=bias.shape)
            assert objective(*moved, l2) > least


def test_preconditioners_lead_to_the_same_solution_along_any_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lbfgs, "COARSE_TOLERANCE", 1e-5)
    dense, diagonal = problem("dense"), problem("diagonal")
    dense.minimise(0.01)
    for l2 in (1.0, 1e-4, 0.01):
        diagonal.minimise(l2)
    for one, other in zip(dense.layer(), diagonal.layer(), strict=True):
        torch.testing.assert_close(one, other, atol=2e-3, rtol=0)


@pytest.mark.parametrize(("kind", "l2", "other_l2"), [("diagonal", 0.1, 1e-4), ("dense", 0.01, 10.0), ("dense", 10, 1)])
def test_a_change_of_preconditioner_moves_nothing(kind: str, l2: float, other_l2: float) -> None:
    solved = problem(kind)
    solved.minimise(l2)
    before, gradient = solved.layer(), solved.gradient_at_zero
    solved._precondition(other_l2)
    for one, other in zip(before, solved.layer(), strict=True):
        torch.testing.assert_close(one, other)
    np.testing.assert_allclose(solved._objective(np.zeros_like(solved.point), 0.0)[1], solved.gradient_at_zero, 1e-5)
    assert not np.allclose(gradient, solved.gradient_at_zero)


def test_strong_l2_takes_no_more_evaluations_than_weak_l2(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = draw(200)
    x = x * torch.tensor([3.0, 1.0, 0.1, 0.03, 0.01])  # as uneven as features are

    def count(l2: float) -> int:
        solved = LinearProblem(x, CLASSES, lambda out: F.cross_entropy(out, y), make_dense_preconditioner(x))
        return solved.minimise(l2, fine=True)

    exact = [count(l2) for l2 in (0.1, 1.0, 10.0, 100.0)]
    assert max(exact) <= count(0.01)
    monkeypatch.setattr(lbfgs, "MIN_EXACT_L2", math.inf)
    assert max(count(l2) for l2 in (0.1, 1.0, 10.0, 100.0)) > max(exact)


def test_one_dense_preconditioner_serves_all_weak_l2_values() -> None:
    preconditioner = make_dense_preconditioner(draw()[0])
    assert preconditioner(1e-5) is preconditioner(0.03)
    assert preconditioner(1.0) is preconditioner(1.0)  # so that nothing is converted twice
    assert not torch.equal(preconditioner(1.0), preconditioner(0.1))


@pytest.mark.parametrize(
    ("best", "start", "stride", "tried"),
    [
        (5, 3, 1, [3, 4, 5, 6]),
        (3, 3, 1, [3, 4, 2]),
        (0, 3, 1, [3, 4, 2, 1, 0, -1]),
        (99, 6, 2, [6, 8, 10]),
        (-99, 0, 2, [0, 2, -2, -4, -6]),
    ],
)
def test_the_search_follows_the_falling_loss_and_restores_the_best(best, start, stride, tried) -> None:
    searched, points, steps = problem("diagonal"), {}, []

    def solve(l2: float) -> float:
        steps.append(round(-2 * math.log10(l2)))
        searched.minimise(l2)
        points[steps[-1]] = searched.layer()
        return abs(steps[-1] - best)

    found = searched.search_l2(solve, start, stride)
    assert steps == tried
    assert found == min(tried, key=lambda step: abs(step - best))
    for one, other in zip(points[found], searched.layer(), strict=True):
        torch.testing.assert_close(one, other)


def test_grid() -> None:
    assert [compute_l2(step) for step in (lbfgs.STRONGEST_STEP, lbfgs.WEAKEST_STEP)] == [1000.0, 1e-5]


def test_a_long_solve_can_be_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    solved, evaluated = problem(), []
    whole = LinearProblem._objective

    def evaluate(self: LinearProblem, point: np.ndarray, l2: float) -> tuple[float, np.ndarray]:
        evaluated.append(l2)
        if len(evaluated) == 3:
            signal.raise_signal(signal.SIGINT)
        return whole(self, point, l2)

    monkeypatch.setattr(LinearProblem, "_objective", evaluate)
    with pytest.raises(signals.StoppedBySignal), signals.defer_stop_signals():
        solved.minimise(0.01, fine=True)
    assert len(evaluated) == 3
