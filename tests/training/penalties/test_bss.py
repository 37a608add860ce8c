import numpy as np
import pytest
import torch

from transfer.training.penalties.bss import BSS
from transfer.training.penalties.penalty import PenaltyInputs


def penalty(features: torch.Tensor, strength: float = 0.5) -> torch.Tensor:
    return BSS(strength)(PenaltyInputs(None, features, features))  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(6, 9), (9, 6)])
def test_it_is_the_smallest_eigenvalue_of_the_gram_matrix(shape: tuple[int, int]) -> None:
    features = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    x = features.double().numpy()
    gram = x @ x.T if shape[0] < shape[1] else x.T @ x
    assert penalty(features).item() == pytest.approx(0.5 * np.linalg.eigvalsh(gram)[0], rel=1e-4)


def test_descent_shrinks_only_the_weakest_direction() -> None:
    features = torch.randn(6, 9, generator=torch.Generator().manual_seed(0)).requires_grad_()
    u, s, v = np.linalg.svd(features.detach().double().numpy(), full_matrices=False)
    penalty(features).backward()
    assert features.grad is not None
    expected = 0.5 * 2 * s[-1] * np.outer(u[:, -1], v[-1])
    assert np.allclose(features.grad.numpy(), expected, atol=1e-4)
    after = np.linalg.svd((features - 0.1 * features.grad).detach().numpy(), compute_uv=False)
    assert after[:-1] == pytest.approx(s[:-1], rel=1e-4)
    assert after[-1] < s[-1]


def test_features_of_low_rank_cost_nothing() -> None:
    features = torch.randn(6, 2) @ torch.randn(2, 9)
    assert penalty(features).item() == pytest.approx(0.0, abs=1e-9)
    assert penalty(features.half() * 0 + 1).dtype == torch.float32
