import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transfer.data.sampling import compute_quotas, draw_few_labels, draw_stratified, get_cells
from transfer.data.table import ImageTable, Target


def table_of(domain, obj):
    n = len(obj)
    targets = {
        "object": Target(np.array(obj, np.int64), classes=tuple("abcdefgh")),
        "domain": Target(np.array(domain, np.int64), classes=("ink", "oil", "wax")),
    }
    return ImageTable(np.array([f"/{i}" for i in range(n)], dtype=str), targets, np.full(n, ""), np.full(n, ""))


labels = st.lists(st.tuples(st.integers(-1, 2), st.integers(0, 4)), min_size=1, max_size=80)
fractions = st.sampled_from([0.1, 0.2, 0.25, 0.3, 0.5, 0.9])


@given(st.lists(st.integers(1, 40), min_size=1, max_size=12), fractions, st.integers(0, 99))
def test_quotas_are_within_one_of_their_shares_and_add_up(counts, fraction, seed):
    counts = np.array(counts)
    owner = np.arange(len(counts))
    quota = compute_quotas(counts, fraction, owner, np.random.default_rng(seed))
    assert (np.abs(quota - fraction * counts) < 1).all()
    assert (quota < counts).all()
    wanted = math.floor(fraction * counts.sum() + 0.5)
    ceilings = np.minimum(np.ceil(fraction * counts - 1e-9), counts - 1).astype(int)
    assert quota.sum() == min(wanted, ceilings.sum())


def test_an_object_spread_over_cells_of_one_keeps_an_image():
    quota = compute_quotas(np.array([1, 1, 20]), 0.9, np.array([0, 0, 1]), np.random.default_rng(0))
    assert quota[:2].sum() == 1


def test_ties_are_broken_by_the_generator():
    drawn = [tuple(compute_quotas(np.full(5, 3), 0.2, np.arange(5), np.random.default_rng(s))) for s in range(20)]
    assert len(set(drawn)) > 3
    assert {sum(d) for d in drawn} == {3}


@given(labels, st.integers(1, 4), st.integers(0, 9))
def test_few_labels_takes_so_many_of_each_cell(pairs, per_class, seed):
    table = table_of(*zip(*pairs, strict=True))
    rows = np.flatnonzero(np.arange(len(pairs)) % 5)  # not all of them
    drawn = draw_few_labels(rows, table, per_class, seed)
    assert set(drawn) <= set(rows)
    there = Counter(pairs[i] for i in rows)
    assert Counter(pairs[i] for i in drawn) == {c: min(n, per_class) for c, n in there.items()}
    assert drawn.tolist() == sorted(set(drawn.tolist()))
    np.testing.assert_array_equal(drawn, draw_few_labels(rows[::-1], table, per_class, seed))


def test_few_labels_leaves_the_unknown_and_heeds_the_seed():
    table = table_of([0] * 30, [-1] * 10 + [1] * 20)
    drawn = {tuple(draw_few_labels(np.arange(30), table, 2, seed)) for seed in range(10)}
    assert len(drawn) > 5
    assert all(min(d) >= 10 for d in drawn)


@given(labels, st.lists(st.integers(0, 30), min_size=80, max_size=80), fractions, st.integers(0, 9))
def test_a_draw_keeps_components_whole_and_leaves_each_object_an_image(pairs, groups, fraction, seed):
    table = table_of(*zip(*pairs, strict=True))
    component = np.array(groups[: len(pairs)])  # of any cells
    rows = np.arange(len(pairs))
    drawn = draw_stratified(rows, table, component, fraction, np.random.default_rng(seed), [], "test")
    rest = np.setdiff1d(rows, drawn)
    assert not set(component[drawn]) & set(component[rest])
    assert set(table.object[rest]) == set(table.object)


@given(labels, fractions, st.integers(0, 9))
def test_a_draw_of_single_images_fills_the_quotas(pairs, fraction, seed):
    table = table_of(*zip(*pairs, strict=True))
    notes: list[str] = []
    rows = np.arange(len(pairs))
    drawn = draw_stratified(rows, table, rows, fraction, np.random.default_rng(seed), notes, "test")
    of_cell, got = Counter(get_cells(rows, table)), Counter(get_cells(drawn, table))
    assert all(abs(got[c] - fraction * n) < 1 for c, n in of_cell.items())
    assert notes == []


def test_large_groups_come_as_near_as_they_can():
    """Five groups of 20: a share of 30 is met by one group or two, never by none, and said."""
    table = table_of([0] * 100, [0] * 100)
    notes: list[str] = []
    drawn = draw_stratified(np.arange(100), table, np.arange(100) // 20, 0.3, np.random.default_rng(0), notes, "test")
    assert len(drawn) in (20, 40)
    assert notes == [f"test has {len(drawn)} images instead of 30: groups are not divided"]


def test_copies_are_drawn_about_as_often_as_single_images():
    table = table_of([0] * 200, [0] * 200)
    component = np.concatenate([np.repeat(np.arange(50), 2), np.arange(100, 200)])
    share = np.mean(
        [
            (draw_stratified(np.arange(200), table, component, 0.2, np.random.default_rng(s), [], "test") < 100).mean()
            for s in range(50)
        ]
    )
    assert share == pytest.approx(0.5, abs=0.05)
