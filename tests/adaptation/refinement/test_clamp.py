"""Known classes: what each refinement does with them, by what it must hold fast and by what it changes."""

import numpy as np
import pytest

from transfer.adaptation.refinement import centroids, label_propagation, product_of_experts, self_training
from transfer.adaptation.refinement.clamp import clamped

CLASSES = 3


def clusters(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows in three tight clusters, and their classes."""
    rng = np.random.default_rng(seed)
    classes = np.arange(60) % CLASSES
    return 3 * np.eye(CLASSES, 6)[classes] + 0.1 * rng.standard_normal((60, 6)), classes


def turned(classes: np.ndarray) -> np.ndarray:
    """What a classifier says that takes every class for the next one, somewhat sure."""
    return 0.4 * np.eye(CLASSES)[(classes + 1) % CLASSES] + 0.2


def refinements():
    def grown(x, q, known):
        empty = np.random.default_rng(1).standard_normal((CLASSES, x.shape[1])) * 1e-3
        return self_training.grow(empty, np.arange(CLASSES), x, q, known=known)

    return {
        "centroids": lambda x, q, known: centroids.refine(x, q, known=known, rounds=3),
        "propagation": lambda x, q, known: label_propagation.propagate(x, q, known=known, alpha=0.99, rounds=300),
        "experts": lambda x, q, known: product_of_experts.combine(x, [(0.25, np.log(q))], known=known),
        "growing": grown,
    }


def test_clamped_by_a_loop():
    q = np.random.default_rng(0).dirichlet(np.ones(4), 9)
    known = np.array([-1, 0, 3, -1, -1, 2, 2, -1, 1])
    for row, (was, now) in enumerate(zip(q, clamped(q, known), strict=True)):
        assert now.tolist() == (was.tolist() if known[row] < 0 else [float(k == known[row]) for k in range(4)])
    assert np.array_equal(clamped(q, None), q)


@pytest.mark.parametrize("name", refinements())
def test_known_rows_keep_their_class_and_nothing_known_changes_nothing(name):
    refine, (x, classes) = refinements()[name], clusters()
    q = turned(classes)
    known = np.where(np.arange(60) < 5, classes, -1)
    held = refine(x, q, known)
    assert (held.argmax(1)[:5] == classes[:5]).all()
    assert held[:5].max(1).min() > 0.9
    np.testing.assert_allclose(held.sum(1), 1)
    assert np.array_equal(refine(x, q, np.full(60, -1)), refine(x, q, None))


@pytest.mark.parametrize("name", ["propagation", "growing"])
def test_few_labels_turn_a_cluster_that_was_called_wrongly(name):
    refine, (x, classes) = refinements()[name], clusters()
    known = np.where(np.arange(60) < 30, classes, -1)
    assert (refine(x, turned(classes), None).argmax(1) == classes).mean() < 0.1
    assert (refine(x, turned(classes), known).argmax(1) == classes)[30:].mean() > 0.9
