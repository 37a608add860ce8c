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


def drawn_from(objects, component, fraction, seed, notes=None):
    """Return the rows that are drawn of one domain, as a list."""
    table, rows = table_of([0] * len(objects), objects), np.arange(len(objects))
    rng = np.random.default_rng(seed)
    return draw_stratified(rows, table, np.array(component), fraction, rng, [] if notes is None else notes, "test")


def test_a_group_is_not_drawn_where_single_images_fill_the_quotas():
    """One of each object is wanted; the group has one of the first and two of the second."""
    objects, component = [0] * 10 + [1] * 10, [*range(10), 0, 0, *range(12, 20)]
    for seed in range(20):
        drawn = drawn_from(objects, component, 0.1, seed)
        assert np.bincount(np.array(objects)[drawn], minlength=2).tolist() == [1, 1]
        assert not set(drawn) & {0, 10, 11}


def test_a_group_does_not_take_the_only_image_of_an_object_along():
    """Three of the second object are wanted, and only a group with the one image of the first has so few."""
    for seed in range(5):
        assert drawn_from([0] + [1] * 10, [0, 0, 0, 0, *[1] * 7], 0.3, seed).tolist() == []


def test_a_group_that_comes_no_nearer_stays_in_train():
    """One image is wanted, and every group has two: none is as near as two."""
    notes: list[str] = []
    assert drawn_from([0] * 10, np.arange(10) // 2, 0.1, 0, notes).tolist() == []
    assert notes == ["test has 0 images instead of 1: groups are not divided"]


@pytest.mark.parametrize(("count", "fraction"), [(0, 0.5), (12, 0.0)])
def test_nothing_is_drawn_of_nothing(count, fraction):
    rng = np.random.default_rng(0)
    table, rows, notes = table_of([0] * 12, [0] * 12), np.arange(count), []
    drawn = draw_stratified(rows, table, np.arange(12), fraction, rng, notes, "test")
    assert (drawn.tolist(), drawn.dtype, notes) == ([], np.int64, [])
    assert rng.random() == np.random.default_rng(0).random()  # what is drawn after it does not depend on it


def draw_naively(rows, table, component, fraction, rng):
    """Return what `draw_stratified` draws, by its general rule alone, which holds for single images, too."""
    _, cell, counts = np.unique(get_cells(rows, table), return_inverse=True, return_counts=True)
    owner = np.array([table.object[rows][cell == c][0] for c in range(len(counts))])
    room = compute_quotas(counts, fraction, owner, rng)
    spare = np.maximum(np.bincount(owner, counts) - 1, 0)
    parts = [np.flatnonzero(component[rows] == name) for name in np.unique(component[rows])]
    waiting, taken = [parts[i] for i in rng.permutation(len(parts))], []
    for overshoot in (False, True):
        left = []
        for part in waiting:
            after = room - np.bincount(cell[part], minlength=len(room))
            touched = np.unique(cell[part])
            closer = np.abs(after[touched]).sum() < np.abs(room[touched]).sum()
            leaving = np.bincount(owner[cell[part]], minlength=len(spare))
            if ((after[touched] >= 0).all() or (overshoot and closer)) and (leaving <= spare).all():
                room, spare = after, spare - leaving
                taken += rows[part].tolist()
            else:
                left.append(part)
        waiting = left
    return sorted(taken)


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 4), st.integers(0, 30)), min_size=2, max_size=60),
    fractions,
    st.integers(0, 9),
)
def test_single_images_are_drawn_by_the_rule_of_groups(images, fraction, seed):
    domain, obj, component = map(np.array, zip(*images, strict=True))
    table, rows = table_of(domain, obj), np.arange(len(images))
    drawn = draw_stratified(rows, table, component, fraction, np.random.default_rng(seed), [], "test")
    assert drawn.tolist() == draw_naively(rows, table, component, fraction, np.random.default_rng(seed))
