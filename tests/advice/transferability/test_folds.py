import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transfer.advice.transferability.folds import assign_folds
from transfer.errors import TransferError


@given(st.integers(0, 10_000), st.integers(2, 6), st.integers(4, 80))
@settings(max_examples=60, deadline=None)
def test_classes_are_even_and_groups_stay_together(seed: int, folds: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(-1, 5, n)
    labels[:2] = 0
    # groups of one class: duplicates with correct labels
    groups = np.where(rng.random(n) < 0.4, (labels + 1) * 100 + rng.integers(0, 3, n), 10_000 + np.arange(n))
    groups[:2] = -1, -2
    fold = assign_folds(labels, groups, folds=folds, seed=seed)
    assert (fold[labels < 0] == -1).all()
    known = labels >= 0
    many = len(np.unique(groups[known]))
    assert set(fold[known]) == set(range(min(folds, many)))
    for group in np.unique(groups[known]):
        assert len(np.unique(fold[known & (groups == group)])) == 1
    for c in np.unique(labels[known]):
        mine = labels == c
        if len(np.unique(groups[mine])) > 1:
            assert all((mine & (fold != f)).any() for f in np.unique(fold[known]))


@given(st.integers(0, 1000), st.integers(2, 6))
@settings(max_examples=25, deadline=None)
def test_without_groups_classes_and_folds_are_even_to_within_one(seed: int, folds: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.choice(5, p=[0.5, 0.3, 0.1, 0.05, 0.05], size=150)
    fold = assign_folds(labels, folds=folds, seed=seed)
    for c in range(5):
        assert np.ptp(np.bincount(fold[labels == c], minlength=folds)) <= 1
    assert np.ptp(np.bincount(fold)) <= 2


def test_a_group_of_several_classes_stays_together() -> None:
    labels, groups = np.array([0, 1, 0, 1, 0, 1]), np.array([0, 0, 1, 2, 3, 4])
    for seed in range(20):
        fold = assign_folds(labels, groups, folds=3, seed=seed)
        assert fold[0] == fold[1]
        assert np.ptp(np.bincount(fold[labels == 0], minlength=3)) == 0


def test_the_seed_decides() -> None:
    labels = np.arange(60) % 3
    assert assign_folds(labels, seed=1).tolist() == assign_folds(labels, seed=1).tolist()
    assert assign_folds(labels, seed=1).tolist() != assign_folds(labels, seed=2).tolist()


def test_too_few_folds_or_groups_are_refused() -> None:
    with pytest.raises(TransferError, match="folds is 1: cross-validation needs 2 or more"):
        assign_folds(np.array([0, 1]), folds=1)
    with pytest.raises(TransferError, match="2 labelled images, 1 without duplicates"):
        assign_folds(np.array([0, 0, -1]), np.array([7, 7, 8]))
    assert sorted(assign_folds(np.array([0, 0, 1]), folds=5).tolist()) == [0, 1, 2]
