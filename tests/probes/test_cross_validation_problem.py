import numpy as np
import pytest
import torch
from torch.nn import functional as F

from transfer.probes import lbfgs
from transfer.probes.cross_validation_problem import CrossValidationProblem, compute_cross_entropy
from transfer.probes.lbfgs import LinearProblem, make_diagonal_preconditioner

FOLDS, CLASSES, WIDTH = 3, 4, 6


def draw(n: int = 90) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(n, WIDTH, generator=g)
    labels = (x[:, :CLASSES] + torch.randn(n, CLASSES, generator=g)).argmax(1)
    return x - x.mean(0), labels, torch.arange(n) % FOLDS


@pytest.fixture(autouse=True)
def exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lbfgs, "COARSE_TOLERANCE", 1e-5)


def test_each_fold_is_a_probe_of_the_other_folds() -> None:
    x, labels, folds = draw()
    together = CrossValidationProblem(x, x.var(0), labels, folds)
    together.minimise(0.03)
    found = together.predict_held_out()
    for fold in range(FOLDS):
        trains = folds != fold
        alone = LinearProblem(
            x[trains],
            CLASSES,
            lambda out, y=labels[trains]: F.cross_entropy(out, y),
            make_diagonal_preconditioner(x.var(0)),
        )
        alone.minimise(0.03)
        wanted = alone.predict(x[~trains]).softmax(1)
        np.testing.assert_allclose(found[~trains.numpy()], wanted.numpy(), atol=2e-3)


def test_rows_of_no_fold_train_every_fold_and_are_not_predicted() -> None:
    x, labels, folds = draw()
    folds = torch.where(folds == 0, -1, 0)
    problem = CrossValidationProblem(x, x.var(0), labels, folds)
    assert problem.row_weights.shape == (1, 90)
    assert torch.equal(problem.row_weights[0] > 0, folds == -1)
    problem.choose_step()
    assert problem.predict_held_out().shape == (60, CLASSES)


def test_the_step_has_the_least_held_out_loss() -> None:
    x, labels, folds = draw()
    problem = CrossValidationProblem(x, x.var(0), labels, folds)
    chosen, losses = problem.choose_step(), {}
    found = compute_cross_entropy(problem.predict_held_out(), labels.numpy())
    for step in range(-6, 11, 2):
        other = CrossValidationProblem(x, x.var(0), labels, folds)
        other.minimise(lbfgs.compute_l2(step))
        losses[step] = compute_cross_entropy(other.predict_held_out(), labels.numpy())
    assert chosen == min(losses, key=losses.get)
    assert found == pytest.approx(losses[chosen], abs=1e-4)


def test_an_l2_value_that_changes_nothing_is_no_better() -> None:
    _, labels, folds = draw()
    problem = CrossValidationProblem(torch.zeros(90, 1), torch.zeros(1), labels, folds)
    problem.choose_step()
    assert np.isfinite(problem.predict_held_out()).all()
