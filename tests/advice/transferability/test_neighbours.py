import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score

from transfer.advice.transferability import neighbours
from transfer.advice.transferability.neighbours import score_neighbours, vote_by_neighbours


def by_loops(x: np.ndarray, labels: np.ndarray, k: int, groups: np.ndarray) -> list[int]:
    answer = []
    for i in range(len(x)):
        near = []
        for j in range(len(x)):
            if groups[j] != groups[i] and labels[j] >= 0:
                cosine = float(x[i] @ x[j]) / (np.linalg.norm(x[i]) * np.linalg.norm(x[j]))
                near.append((cosine, labels[j]))
        votes: dict[int, tuple[int, float]] = {}
        for cosine, label in sorted(near, reverse=True)[:k]:
            count, total = votes.get(label, (0, 0.0))
            votes[label] = count + 1, total + cosine
        answer.append(int(max(votes, key=lambda c: votes[c])) if votes else -1)
    return answer


@given(st.integers(0, 10_000), st.integers(1, 7), st.booleans())
@settings(max_examples=30, deadline=None)
def test_it_agrees_with_plain_loops(seed: int, k: int, grouped: bool) -> None:
    rng = np.random.default_rng(seed)
    n = 40
    labels = rng.integers(-1, 4, n)
    x = rng.normal(size=(n, 6)) + 1.5 * rng.normal(size=(5, 6))[labels]
    groups = rng.integers(0, 25, n) if grouped else np.arange(n)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbours, "ROWS_AT_ONCE", 7)
        answer = vote_by_neighbours(x, labels, k=k, groups=groups)
    expected = by_loops(x, labels, k, groups)
    assert answer.tolist() == expected
    known = labels >= 0
    report = score_neighbours(x, labels, k=k, groups=groups)
    assert report["accuracy"] == pytest.approx(np.mean(np.array(expected)[known] == labels[known]))
    if (answer[known] >= 0).all():
        assert report["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels[known], answer[known]))


def test_duplicates_do_not_vote_on_each_other() -> None:
    """Noise, each picture twice: a copy gives its twin away unless the group says so."""
    rng = np.random.default_rng(0)
    x, labels = np.repeat(rng.normal(size=(200, 8)), 2, axis=0), np.repeat(rng.integers(0, 10, 200), 2)
    assert score_neighbours(x, labels, k=1)["accuracy"] == 1.0
    assert score_neighbours(x, labels, k=1, groups=np.arange(400) // 2)["accuracy"] < 0.25


def test_the_length_of_a_feature_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(60, 5)), rng.integers(0, 3, 60)
    longer = x * rng.uniform(0.1, 10, (60, 1))
    assert vote_by_neighbours(x, labels).tolist() == vote_by_neighbours(longer, labels).tolist()


def test_without_voters() -> None:
    x = np.ones((3, 2))
    assert vote_by_neighbours(x, np.full(3, -1)).tolist() == [-1, -1, -1]
    assert np.isnan(score_neighbours(x, np.full(3, -1))["accuracy"])
    assert vote_by_neighbours(x, np.array([0, 0, 1]), groups=np.zeros(3, int)).tolist() == [-1, -1, -1]
    assert score_neighbours(x, np.array([0, 0, 1]), groups=np.zeros(3, int))["accuracy"] == 0.0
    assert vote_by_neighbours(np.zeros((3, 2)), np.array([0, 0, 0])).tolist() == [0, 0, 0]
