import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transfer.adaptation.selection.importance_weights import (
    DISCRIMINATOR_COMPONENTS,
    MAX_RATIO,
    density_ratio,
    reduce_dimensions,
)


def gaussian_kernels(shift: float, width: int, sizes: tuple[int, int] = (4000, 4000)) -> tuple[np.ndarray, ...]:
    """Return source, target and held-out source rows of two normal distributions, and the true ratio at those."""
    rng = np.random.default_rng(1)
    mean = np.zeros(width)
    mean[0] = shift
    source, target = rng.normal(size=(sizes[0], width)), rng.normal(size=(sizes[1], width)) + mean
    rows = rng.normal(size=(500, width))
    return source, target, rows, np.exp(rows @ mean - mean @ mean / 2)


@pytest.mark.parametrize("width", [1, 5])
@pytest.mark.parametrize("sizes", [(4000, 4000), (8000, 2000)])
def test_the_ratio_of_two_gaussians(width: int, sizes: tuple[int, int]) -> None:
    *data, true = gaussian_kernels(1.0, width, sizes)
    ratio = density_ratio(*data)
    assert np.corrcoef(np.log(ratio), np.log(true))[0, 1] > 0.99
    assert np.abs(np.log(ratio) - np.log(true)).mean() < 0.12
    assert ratio.mean() == pytest.approx(1, abs=0.15)  # its mean over the source is 1


def test_one_distribution_has_ratio_one() -> None:
    *data, _ = gaussian_kernels(0.0, 3)
    assert density_ratio(*data) == pytest.approx(1, abs=0.25)


def test_rows_that_the_source_never_has_are_clipped() -> None:
    source, target, _, _ = gaussian_kernels(8.0, 2)
    ratio = density_ratio(source, target, np.array([[8.0, 0.0], [0.0, 0.0]]))
    assert ratio[0] == pytest.approx(MAX_RATIO)
    assert 0 <= ratio[1] < 0.01


def test_wide_features_are_reduced() -> None:
    rng = np.random.default_rng(0)
    parts = reduce_dimensions(rng.normal(size=(90, 200)), rng.normal(size=(60, 200)), rng.normal(size=(7, 200)))
    assert [part.shape for part in parts] == [
        (90, DISCRIMINATOR_COMPONENTS),
        (60, DISCRIMINATOR_COMPONENTS),
        (7, DISCRIMINATOR_COMPONENTS),
    ]
    pooled = np.concatenate(parts[:2])
    np.testing.assert_allclose(pooled.T @ pooled / 149, np.eye(DISCRIMINATOR_COMPONENTS), atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000))
def test_the_order_of_rows_does_not_matter(seed: int) -> None:
    source, target, rows, _ = gaussian_kernels(1.0, 3, (60, 40))
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(rows))
    ratio = density_ratio(rng.permutation(source), rng.permutation(target), rows[order])
    np.testing.assert_allclose(ratio, density_ratio(source, target, rows)[order], rtol=1e-2)


def test_few_rows() -> None:
    one = np.zeros((1, 3))
    assert density_ratio(one, one, np.empty((0, 3))).shape == (0,)
    assert np.isfinite(density_ratio(np.eye(3), np.ones((1, 3)), np.eye(3))).all()
    np.testing.assert_allclose(density_ratio(one, one, one), 1)
