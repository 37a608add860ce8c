import numpy as np
import pytest
import torch

from transfer.heads import HeadSpec, find_head_kind

SPEC = HeadSpec("age", "regression", centre=40.0, spread=8.0)
KIND = find_head_kind("regression")


def test_targets_are_standardised_by_the_training_values() -> None:
    assert KIND.centre_and_spread(np.array([32.0, 48.0])) == (40.0, 8.0)
    assert KIND.centre_and_spread(np.array([3.0, 3.0])) == (3.0, 1.0)
    assert KIND.centre_and_spread(np.array([])) == (0.0, 1.0)


def test_losses_are_squared_errors_of_the_standardised_target() -> None:
    found = KIND.losses(SPEC, torch.tensor([0.5, -1.0]), torch.tensor([44.0, 48.0]), smoothing=0.1, loss="hinge")
    assert found.tolist() == [0.0, pytest.approx(4.0)]
    assert KIND.predictions(SPEC, torch.tensor([0.5, -1.0])).tolist() == [44.0, 32.0]


def test_folding_the_unit_into_the_weights_gives_the_same_values() -> None:
    x, weight, bias = torch.randn(4, 6), torch.randn(1, 6), torch.randn(1)
    expected = KIND.predictions(SPEC, (x @ weight.T + bias).squeeze(1))
    folded, offset = KIND.fold_unit(SPEC, weight, bias)
    assert torch.allclose((x @ folded.T + offset).squeeze(1), expected, atol=1e-4)
