import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transfer.data.label_sets.combinations import use_label_sets
from transfer.data.label_sets.stratification import draw_by_labels
from transfer.data.splits import split
from transfer.data.table import ImageTable, Target, make_softmax_target


def table_of(values, objects=None, group=None):
    n, count = values.shape
    tags = Target(values.astype(np.int8), "multilabel", tuple("abcdefghij"[:count]))
    targets = {"object": make_softmax_target(objects or [""] * n), "domain": make_softmax_target(["all"] * n)}
    blank = np.full(n, "")
    table = ImageTable(
        np.array([f"/{i}" for i in range(n)]), targets | {"tags": tags}, blank, group if group is not None else blank
    )
    return use_label_sets(table)


def draw(table, fraction, seed=0, component=None):
    rows = np.flatnonzero(table.object >= 0)
    component = np.arange(len(table)) if component is None else component
    return draw_by_labels(rows, table, component, fraction, np.random.default_rng(seed), [], "test")


def shares(rng, n, rates):
    return (rng.random((n, len(rates))) < rates).astype(int)


@pytest.mark.parametrize("fraction", [0.2, 0.5])
def test_each_label_is_shared_out_in_proportion(fraction) -> None:
    rng = np.random.default_rng(0)
    values = shares(rng, 400, np.array([0.5, 0.2, 0.05, 0.02]))
    drawn = draw(table_of(values), fraction)
    assert abs(len(drawn) - fraction * 400) <= 4
    assert (abs(values[drawn].sum(0) - fraction * values.sum(0)) <= 2).all()


def test_it_is_closer_to_the_proportions_than_a_random_draw() -> None:
    rng = np.random.default_rng(1)
    values = shares(rng, 300, np.full(10, 0.04))
    wanted = 0.2 * values.sum(0)
    random = [abs(values[rng.permutation(300)[:60]].sum(0) - wanted).mean() for _ in range(50)]
    stratified = [abs(values[draw(table_of(values), 0.2, seed)].sum(0) - wanted).mean() for seed in range(10)]
    assert np.mean(stratified) < np.mean(random) / 2


def test_labels_of_three_images_and_more_are_on_both_sides() -> None:
    values = np.zeros((60, 3), int)
    values[:3, 0], values[10:13, 1], values[20:, 2] = 1, 1, 1
    for seed in range(20):
        drawn = draw(table_of(values), 0.25, seed)
        for label in range(3):
            inside = values[drawn, label].sum()
            assert 0 < inside < values[:, label].sum()


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10_000), st.integers(1, 60), st.integers(1, 6), st.sampled_from([0.1, 0.3, 0.6, 0.9]))
def test_laws(seed, n, labels, fraction) -> None:
    rng = np.random.default_rng(seed)
    values = rng.choice([-1, 0, 1], size=(n, labels))
    component = rng.integers(0, n, n)
    table = table_of(values)
    drawn = draw(table, fraction, seed, component)
    known = (values >= 0).any(1)
    assert len(set(drawn.tolist())) == len(drawn)
    assert known[drawn].all()
    rest = np.setdiff1d(np.flatnonzero(known), drawn)
    assert not set(component[drawn]) & set(component[rest])  # no component is divided
    shown = values == 1
    assert ((shown[rest].sum(0) > 0) | (shown[known].sum(0) == 0)).all()  # no label leaves train
    np.testing.assert_array_equal(drawn, draw(table, fraction, seed, component))


def test_objects_of_their_own_are_shared_out_as_well() -> None:
    rng = np.random.default_rng(0)
    values = shares(rng, 200, np.array([0.3, 0.1]))
    objects = [f"o{i % 8}" for i in range(200)]
    table = table_of(values, objects)
    parts = split(table, test=0.2, val=0.2, seed=0)
    for rows in (parts.test, parts.val):
        counts = np.bincount(table.object[rows], minlength=8)
        assert counts.min() >= 2
        assert counts.max() <= 8


def test_a_split_of_labels_leaves_rows_without_any_label_in_train() -> None:
    values = shares(np.random.default_rng(0), 100, np.array([0.5, 0.3]))
    values[:7] = -1
    parts = split(table_of(values), test=0.2, val=0.2, seed=0)
    assert set(range(7)) <= set(parts.train.tolist())
    assert len(parts.train) + len(parts.val) + len(parts.test) == 100
