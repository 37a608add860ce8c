import pytest
import torch

from transfer.evaluation.uncertainty import whitening
from transfer.evaluation.uncertainty.whitening import compute_gram, invert_triangle
from transfer.probes.side_by_side import run_side_by_side


@pytest.mark.parametrize("width", [1, 7, 255, 512, 520, 769, 1280])
def test_blocks_give_the_whole_products(width):
    x = torch.randn(300, width, generator=torch.Generator().manual_seed(width))
    gram = compute_gram(x)
    torch.testing.assert_close(gram, (x.double().T @ x.double()).float(), rtol=1e-4, atol=1e-3)
    lower = torch.linalg.cholesky(gram + 50 * torch.eye(width))  # reads the lower half
    inverse = invert_triangle(lower)
    torch.testing.assert_close(inverse @ lower, torch.eye(width), rtol=0, atol=1e-5)
    assert not inverse.triu(1).any()


@pytest.mark.skipif(torch.backends.cpu.get_cpu_capability() != "AVX2", reason="measured with AVX2")
@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="without MKL")
@pytest.mark.parametrize("width", [512, 960, 1280, 1408, 2048])
def test_blocks_have_the_bits_of_the_whole_products_on_one_core(width):
    def compare():
        x = torch.randn(500, width, generator=torch.Generator().manual_seed(0))
        gram = compute_gram(x)
        lower = torch.linalg.cholesky(gram + 50 * torch.eye(width))
        whole = torch.linalg.solve_triangular(lower, torch.eye(width), upper=False)
        return torch.equal(gram, x.T @ x), torch.equal(invert_triangle(lower), whole)

    assert run_side_by_side([compare, compare]) == [(True, True)] * 2


def test_narrow_features_are_multiplied_whole(monkeypatch):
    monkeypatch.setattr(whitening, "BLOCK", None)  # would fail
    x = torch.randn(20, whitening.MIN_WIDTH - 1)
    assert torch.equal(compute_gram(x), x.T @ x)
    assert torch.equal(invert_triangle(torch.eye(3)), torch.eye(3))
