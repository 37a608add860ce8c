"""Refined probabilities against loops with gradients written out, and what they are good for."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from prototypes import project_by_svd, refine_by_loops

from transfer.semi_supervised import information
from transfer.semi_supervised.information import can_refine, project_features, refine_probabilities

CLASSES = 3


def draw(rows: int = 60, width: int = 12, seed: int = 0) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
    """Features, labels of two images of each class, and the true classes."""
    rng = np.random.default_rng(seed)
    truth = np.arange(rows) % CLASSES
    x = rng.standard_normal((rows, width)) + 2 * np.eye(CLASSES, width)[truth]
    return torch.from_numpy(x).float(), np.where(np.arange(rows) < 2 * CLASSES, truth, -1), truth


@pytest.mark.parametrize("width", [12, 100])  # fewer features than images, and more
def test_projection_is_that_of_a_singular_value_decomposition(width: int) -> None:
    x, _, _ = draw(width=width)
    found = project_features(x, CLASSES).numpy()
    expected = project_by_svd(x.double().numpy(), 64)
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=2e-4)  # signs and order are free


def test_as_many_components_as_classes() -> None:
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((200, 150))).float()
    assert project_features(x, 5).shape == (200, 64)
    assert project_features(x, 90).shape == (200, 90)


def test_refined_by_loops() -> None:
    x, labels, _ = draw()
    z = project_features(x, CLASSES)
    start = np.random.default_rng(1).dirichlet(np.ones(CLASSES), len(x))
    found = refine_probabilities(z, start, labels)
    expected = refine_by_loops(z.double().numpy(), start, labels, 100, 2e-3, 10.0)
    np.testing.assert_allclose(found, expected, atol=2e-3)
    assert (found.argmax(1) != start.argmax(1)).mean() > 0.2  # it moved


def test_images_that_went_to_one_class_return_to_theirs() -> None:
    """Propagation gives everything to the first class; its own class is each image's second guess."""
    x, labels, truth = draw(rows=150)
    leaning = 0.4 * np.eye(CLASSES)[truth] + 0.6 * np.eye(CLASSES)[0]
    found = refine_probabilities(project_features(x, CLASSES), leaning, labels).argmax(1)
    assert (leaning.argmax(1) == truth).mean() < 0.4
    assert (found == truth).mean() > 0.6


def test_a_class_without_rows_and_labelled_rows_alone() -> None:
    x, labels, truth = draw()
    start = np.pad(np.random.default_rng(1).dirichlet(np.ones(CLASSES), len(x)), ((0, 0), (0, 1)))
    found = refine_probabilities(project_features(x, CLASSES + 1), start, labels)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found.sum(1), 1)
    assert refine_probabilities(project_features(x, CLASSES), start, truth) is start


def test_the_caller_may_forbid_gradients() -> None:
    x, labels, _ = draw()
    z, start = project_features(x, CLASSES), np.full((len(x), CLASSES), 1 / CLASSES)
    with torch.no_grad():
        found = refine_probabilities(z, start, labels)
    np.testing.assert_array_equal(found, refine_probabilities(z, start, labels))


def test_many_rows_of_many_classes_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    assert can_refine(10_000, 200)
    assert not can_refine(10_000, 201)
    monkeypatch.setattr(information, "MAX_OUTPUTS", 10)
    assert not can_refine(4, 3)


def test_the_same_bits_on_one_core_and_on_two() -> None:
    x, labels, _ = draw(rows=3000, width=80)
    z = project_features(x, CLASSES)
    start = np.random.default_rng(1).dirichlet(np.ones(CLASSES), len(x))
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(refine_probabilities(z, start, labels))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(*found)


def test_it_does_without_the_compiler() -> None:
    """Its import takes a second, which an optimizer asks for."""
    code = (
        "import sys, numpy as np, torch\n"
        "from transfer.runtime.compiler import defer_compiler\n"
        "with defer_compiler():  # as the command does\n"
        "    from transfer.semi_supervised.information import refine_probabilities\n"
        "refine_probabilities(torch.eye(3), np.full((3, 2), 0.5), np.array([0, 1, -1]))\n"
        "assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
