import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transfer.advice.transferability.crossval import cross_validate
from transfer.advice.transferability.folds import assign_folds
from transfer.advice.transferability.noise import find_label_noise


def separable(flipped: float, n: int = 600, classes: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    true = rng.integers(0, classes, n)
    labels, rows = true.copy(), rng.permutation(n)[: round(flipped * n)]
    labels[rows] = (true[rows] + rng.integers(1, classes, len(rows))) % classes
    return 6 * np.eye(10)[true] + rng.normal(size=(n, 10)), labels, rows


@pytest.mark.parametrize("flipped", [0.05, 0.1, 0.2])
def test_flipped_labels_are_found(flipped: float) -> None:
    x, labels, rows = separable(flipped)
    found = find_label_noise(cross_validate(x, labels, assign_folds(labels)).probabilities, labels)
    assert found.share == pytest.approx(flipped, abs=0.02)
    assert found.count == round(found.share * 600)
    assert np.isin(found.suspects, rows).mean() > 0.95
    assert np.isin(rows, found.suspects).mean() > 0.7
    assert (found.called == x[found.suspects].argmax(1)).mean() > 0.95


def test_correct_labels_are_not_suspect() -> None:
    x, labels, _ = separable(0.0)
    found = find_label_noise(cross_validate(x, labels, assign_folds(labels)).probabilities, labels)
    assert found.share < 0.01
    assert len(found.suspects) <= 3


@given(st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_it_agrees_with_the_formula(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, m = 40, 3
    labels = rng.integers(-1, m, n)
    labels[:m] = range(m)
    p = rng.dirichlet(np.ones(m), size=n)
    rows = [i for i in range(n) if labels[i] >= 0]
    threshold = [np.mean([p[i, j] for i in rows if labels[i] == j]) for j in range(m)]
    joint, called = np.zeros((m, m)), {}
    for i in rows:
        above = [j for j in range(m) if p[i, j] >= threshold[j] - 1e-12]
        if above:
            called[i] = max(above, key=lambda j, i=i: p[i, j])
            joint[labels[i], called[i]] += 1
    wrong = 0.0
    for j in range(m):
        if joint[j].sum():
            wrong += (1 - joint[j, j] / joint[j].sum()) * sum(labels[i] == j for i in rows)
    found = find_label_noise(p, labels)
    assert found.share == pytest.approx(wrong / len(rows))
    suspects = {i: j for i, j in called.items() if j != labels[i]}
    assert dict(zip(found.suspects.tolist(), found.called.tolist(), strict=True)) == suspects
    margins = [p[i, j] - p[i, labels[i]] for i, j in zip(found.suspects, found.called, strict=True)]
    assert margins == sorted(margins, reverse=True)


def test_unlabelled_rows_and_absent_classes() -> None:
    p = np.full((4, 5), np.nan)
    assert find_label_noise(p, np.full(4, -1)).count == 0
    p[:3] = [[0.9, 0, 0.1, 0, 0], [0.9, 0, 0.1, 0, 0], [0.1, 0, 0.9, 0, 0]]
    found = find_label_noise(p, np.array([0, 0, 2, -1]))  # classes 1, 3 and 4 do not occur, row 3 is not known
    assert (found.count, found.share, len(found.suspects)) == (0, 0.0, 0)
