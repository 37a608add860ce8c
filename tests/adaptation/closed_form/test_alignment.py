"""Maps against moments computed here: scikit-learn's shrunk covariance, matrix roots by scipy, principal components."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm
from sklearn.covariance import ledoit_wolf
from sklearn.decomposition import PCA

from transfer.adaptation.closed_form.alignment import ALIGNMENTS, AffineMap, fit_alignment
from transfer.errors import TransferError


def draw(rows: int, width: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mixed = rng.standard_normal((rows, width)) @ rng.standard_normal((width, width))
    return (mixed * np.logspace(-1, 1, width) + 5 * rng.standard_normal(width)).astype(np.float32)


def shrunk(x: np.ndarray) -> np.ndarray:
    return ledoit_wolf(x.astype(float) - x.mean(0, dtype=float), assume_centered=True)[0]


def test_alignment_none_is_the_identity() -> None:
    source, target = draw(9, 4, 0), draw(7, 4, 1)
    for affine, x in zip(fit_alignment("none", source, target), (source, target), strict=True):
        np.testing.assert_array_equal(affine(x), x)


@given(rows=st.tuples(st.integers(2, 40), st.integers(2, 40)), width=st.integers(1, 8), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_standardised_domains_have_mean_0_and_deviation_1(rows: tuple[int, int], width: int, seed: int) -> None:
    both = draw(rows[0], width, seed), draw(rows[1], width, seed + 1)
    for affine, x in zip(fit_alignment("standardise", *both), both, strict=True):
        # All but what a centre in float32 is rounded by, which counts where rows are nearly the same.
        rounded = np.finfo(np.float32).eps * np.abs(x).max(0) / x.std(0, dtype=float)
        assert (np.abs(affine(x).mean(0, dtype=float)) <= rounded).all()
        np.testing.assert_allclose(affine(x).std(0, dtype=float), 1, atol=1e-5)


def test_features_constant_in_a_domain_are_0_there() -> None:
    source, target = draw(30, 3, 0), draw(20, 3, 1)
    target[:, 1] = 0.1  # no float32 is: its mean is rounded
    source[:, 2] = 0
    to_source, to_target = fit_alignment("standardise", source, target)
    assert not to_target(target)[:, 1].any()
    assert not to_source(source)[:, 2].any()
    assert to_source(source)[:, 1].std() == pytest.approx(1, abs=1e-3)
    assert not to_target(target + 1)[:, 1].any()


@pytest.mark.parametrize(("rows", "width"), [((400, 300), 6), ((30, 300), 40), ((25, 20), 40)])
def test_coral_gives_the_source_the_targets_covariance(rows: tuple[int, int], width: int) -> None:
    source, target = draw(rows[0], width, 2), draw(rows[1], width, 3)
    to_source, to_target = fit_alignment("coral", source, target)
    matrix = to_source.matrix.astype(float)
    goal = shrunk(target)
    np.testing.assert_allclose(matrix.T @ shrunk(source) @ matrix, goal, atol=1e-4 * np.abs(goal).max())
    root = sqrtm(goal).real @ np.linalg.inv(sqrtm(shrunk(source)).real)
    np.testing.assert_allclose(matrix.T, root, atol=1e-4 * np.abs(root).max())
    np.testing.assert_allclose(to_source(source).mean(0), 0, atol=1e-3 * np.abs(source).max())
    np.testing.assert_allclose(to_target(target), target - target.mean(0), rtol=1e-5, atol=1e-4)


def test_coral_undoes_a_linear_change_of_the_features() -> None:
    rng = np.random.default_rng(0)
    source = rng.standard_normal((20000, 3)).astype(np.float32)
    lean = np.array(
        [[2, 0.5, 0], [0.5, 1, 0], [0, 0, 0.2]], np.float32
    )  # symmetric: no turn, which moments do not show
    to_source, to_target = fit_alignment("coral", source, source @ lean + 7)
    np.testing.assert_allclose(to_source(source), to_target(source @ lean + 7), atol=0.1)


@pytest.mark.parametrize("rows", [(60, 50), (9, 50), (60, 6)])
def test_subspaces_are_those_of_principal_components(rows: tuple[int, int]) -> None:
    source, target = draw(rows[0], 12, 4), draw(rows[1], 12, 5)
    size = min(7, rows[0] - 1, rows[1] - 1)
    to_source, to_target = fit_alignment("subspace", source, target, size=7)
    assert to_source.size == to_target.size == size
    a, b = (PCA(size, svd_solver="full").fit(x.astype(float)) for x in (source, target))
    one = a.transform(source) @ a.components_ @ b.components_.T
    two = b.transform(target)
    distances = ((one[:, None] - two) ** 2).sum(2)  # blind to the signs of directions
    ours = ((to_source(source)[:, None].astype(float) - to_target(target)) ** 2).sum(2)
    np.testing.assert_allclose(ours, distances, rtol=1e-3, atol=1e-3 * distances.max())


@pytest.mark.parametrize("kind", ALIGNMENTS)
@pytest.mark.parametrize("rows", [1, 2, 3])
def test_a_few_target_rows(kind: str, rows: int) -> None:
    source, target = draw(40, 10, 6), draw(rows, 10, 7)
    for affine, x in zip(fit_alignment(kind, source, target), (source, target), strict=True):
        mapped = affine(x)
        assert mapped.dtype == np.float32
        assert np.isfinite(mapped).all()
        assert mapped.shape == (len(x), affine.size)


@pytest.mark.parametrize("kind", ["standardise", "coral", "subspace"])
def test_a_domain_without_spread_takes_the_others_map(kind: str) -> None:
    source = draw(40, 10, 6)
    alone = fit_alignment(kind, source, source)
    for target in (draw(1, 10, 7), np.tile(draw(1, 10, 7), (5, 1))):
        for affine, other in zip(fit_alignment(kind, source, target), alone, strict=True):
            np.testing.assert_array_equal(affine.centre, other.centre)
            np.testing.assert_array_equal(affine.matrix, other.matrix)
    turned, _ = fit_alignment("coral", draw(1, 10, 7), source)
    np.testing.assert_allclose(turned.matrix, np.eye(10), atol=1e-4)


@pytest.mark.parametrize("kind", ALIGNMENTS)
def test_without_spread_the_alignment_is_the_identity(kind: str) -> None:
    x = draw(1, 10, 7)
    for affine in fit_alignment(kind, x, x + 1):
        np.testing.assert_array_equal(affine(x), x)


@pytest.mark.parametrize("kind", ALIGNMENTS)
def test_each_source_is_brought_to_the_target_as_if_it_were_the_only_one(kind: str) -> None:
    sources, target = (draw(30, 5, 8), draw(25, 5, 10)), draw(20, 5, 9)
    *together, last = fit_alignment(kind, *sources, target)
    for affine, source in zip(together, sources, strict=True):
        alone, goal = fit_alignment(kind, source, target)
        for ours, theirs in ((affine, alone), (last, goal)):
            np.testing.assert_array_equal(ours.centre, theirs.centre)
            np.testing.assert_array_equal(ours.matrix, theirs.matrix)


def test_a_single_image_among_several_domains_takes_the_map_of_all_others_together() -> None:
    first, second, one = draw(30, 5, 8), draw(25, 5, 10), draw(1, 5, 9)
    *_, last = fit_alignment("standardise", first, second, one)
    both = np.concatenate([first, second])
    np.testing.assert_allclose(last(both), (both - both.mean(0)) / both.std(0), atol=1e-3)
    assert fit_alignment("standardise", first, one[:0], second)[1].size == 5  # nor does a domain without a row fail


@pytest.mark.parametrize("kind", ALIGNMENTS)
def test_the_order_of_rows_does_not_matter(kind: str) -> None:
    source, target = draw(30, 5, 8), draw(20, 5, 9)
    ours, turned = fit_alignment(kind, source, target, size=3), fit_alignment(kind, source[::-1], target[::-1], size=3)
    one, two = (maps[0](source) @ maps[1](target).T for maps in (ours, turned))
    np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-3 * np.abs(one).max())


@pytest.mark.parametrize("matrix", [(6,), (6, 4)])
def test_an_affine_map_folds_into_the_linear_layer_above(matrix: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    affine = AffineMap(rng.standard_normal(6).astype(np.float32), rng.standard_normal(matrix).astype(np.float32))
    x = torch.from_numpy(rng.standard_normal((5, 6)).astype(np.float32)).requires_grad_()
    layer = torch.nn.Linear(affine.size, 3)
    weight, bias = affine.folded(layer.weight, layer.bias)
    expected = layer(torch.from_numpy(affine(x.detach().numpy())))
    torch.testing.assert_close(torch.nn.functional.linear(x, weight, bias), expected)
    torch.testing.assert_close(layer(affine.tensor(x)), expected)
    layer(affine.tensor(x)).sum().backward()
    torch.testing.assert_close(x.grad, weight.sum(0).expand(5, 6))


def test_an_unknown_alignment_is_refused() -> None:
    with pytest.raises(TransferError, match="did you mean 'coral'"):
        fit_alignment("corall", draw(3, 2, 0), draw(3, 2, 1))
