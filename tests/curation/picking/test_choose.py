from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transfer.curation.picking.choose import PickingTask, allot, choose_images
from transfer.curation.picking.registry import STRATEGIES
from transfer.errors import TransferError


def make_task(n=60, labelled=10, seed=0, domains=1, copies=0):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, n)
    features = 3 * np.eye(6)[truth] + rng.normal(size=(n, 6)) + 2
    groups = np.arange(n)
    groups[n - copies :] = rng.integers(0, n - copies, copies)  # near-duplicates of earlier rows
    labels = np.where(np.arange(n) < labelled, truth, -1)
    return PickingTask(features.astype(np.float32), labels, ("a", "b", "c"), groups, rng.integers(0, domains, n))


@pytest.mark.parametrize("name", STRATEGIES)
@given(
    seed=st.integers(0, 30), labelled=st.sampled_from([12, 30]), copies=st.integers(0, 25), domains=st.integers(1, 4)
)
def test_choices_are_new_and_of_groups_of_their_own(name, seed, labelled, copies, domains):
    task = make_task(60, labelled, seed, domains, copies)
    n = min(9, int(task.find_candidates().sum()))
    rows = [each.row for each in choose_images(task, n, name, seed)] if n else []
    assert len(rows) == n
    assert (task.labels[rows] < 0).all()
    assert len(set(task.groups[rows])) == n
    assert not set(task.groups[rows]) & set(task.groups[:labelled])


def test_closed_rows_and_their_near_duplicates_are_not_chosen():
    task = make_task(30, 0, copies=10)
    closed = np.isin(np.arange(30), [0, 25])
    task = replace(task, closed=closed)
    rows = [each.row for each in choose_images(task, int(task.find_candidates().sum()))]
    assert not set(task.groups[rows]) & set(task.groups[closed])
    assert set(task.groups[rows]) | set(task.groups[closed]) == set(task.groups)


def test_choices_follow_the_seed():
    task = make_task()
    by_seed = [[each.row for each in choose_images(task, 8, "random", seed)] for seed in (3, 3, 4)]
    assert by_seed[0] == by_seed[1] != by_seed[2]


def test_each_domain_has_its_share_early():
    task = make_task(90, 0, domains=3)
    rows = np.array([each.row for each in choose_images(task, 12)])
    sizes = np.bincount(task.domains)
    assert np.abs(np.bincount(task.domains[rows]) - 12 * sizes / 90).max() < 1
    assert len(set(task.domains[rows[:3]])) == 3


def test_the_probe_knows_what_the_labels_say():
    task = make_task(60, 30)
    truth = np.random.default_rng(0).integers(0, 3, 60)
    assert (task.predict().argmax(1) == truth).mean() > 0.8
    assert replace(task, labels=np.where(task.labels == 0, 0, -1)).predict() is None


def test_errors_say_what_is_left():
    task = make_task(30, 10, copies=10)
    count = int(task.find_candidates().sum())
    assert count < 20
    with pytest.raises(TransferError, match=f"--n 21: only {count} images can be chosen .20 have no label"):
        choose_images(task, 21)
    with pytest.raises(TransferError, match="no image without a label is left"):
        choose_images(replace(task, labels=np.zeros(30, np.int64)), 1)
    with pytest.raises(TransferError, match="--strategy badge needs labels of two classes or more: begin with auto"):
        choose_images(replace(task, labels=np.full(30, -1)), 1, "badge")
    with pytest.raises(TransferError, match="did you mean 'margin'"):
        choose_images(task, 1, "margins")


@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.data())
def test_shares_are_whole_numbers_in_proportion(sizes, data):
    n = data.draw(st.integers(1, sum(sizes)))
    domains = np.repeat(np.arange(len(sizes)), sizes)
    quota = allot(n, domains)
    assert sum(quota.values()) == n
    assert all(0 < quota[d] <= sizes[d] for d in quota)
    if n >= len(sizes):
        assert len(quota) == len(sizes)
    shares = [n * size / sum(sizes) for size in sizes]
    if min(shares) >= 1:
        assert all(abs(quota[d] - share) < 1 for d, share in enumerate(shares))
