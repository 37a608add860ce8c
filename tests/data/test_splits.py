from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transfer.data.duplicates import Inspection, group_near_duplicates, inspect_files
from transfer.data.folders import read_folder
from transfer.data.sampling import draw_few_labels
from transfer.data.splits import mask_labels, split
from transfer.data.table import ImageTable, Target
from transfer.errors import TransferError

SHARED = Path(__file__).parents[3] / "shared"


def table_of(domain, obj, given=None, group=None, **further):
    n = len(obj)
    targets = {
        "object": Target(np.array(obj, np.int64), classes=tuple("abcdefgh")),
        "domain": Target(np.array(domain, np.int64), classes=("ink", "oil", "wax")),
    }
    empty = np.full(n, "", dtype="<U8")
    return ImageTable(
        np.array([f"/{i}" for i in range(n)], dtype=str),
        targets | further,
        empty if given is None else np.array(given, dtype="<U8"),
        empty if group is None else np.array(group, dtype="<U8"),
    )


def seen(contents, hashes=None):
    """Return an inspection of files with these contents; unless given, no two hashes are near."""
    n = len(contents)
    if hashes is None:
        hashes = np.random.default_rng(9).integers(0, 2**63, max(contents, default=0) + 1)[contents]
    return Inspection(np.array([str(c) for c in contents]), np.array(hashes, np.uint64), np.full(n, ""))


@st.composite
def sets(draw):
    n = draw(st.integers(1, 90))

    def column(low, high):
        return draw(st.lists(st.integers(low, high), min_size=n, max_size=n))

    group = [f"g{g}" if g < 5 else "" for g in column(0, 30)]
    return table_of(column(-1, 2), column(-1, 3), group=group), seen(column(0, 2 * n))


@settings(deadline=None)
@given(sets(), st.sampled_from([0, 0.2, 0.5]), st.sampled_from([0, 0.2, 0.4]), st.sampled_from([None, 1, 3]))
def test_laws(images, test, val, shots):
    table, inspection = images
    parts = split(table, inspection, test=test, val=val, shots=shots, seed=3)
    rows = np.concatenate([parts.train, parts.val, parts.test])
    assert len(set(rows.tolist())) == len(rows)
    if shots is None:
        assert sorted(rows) == list(range(len(table)))
    held = np.concatenate([parts.val, parts.test])
    assert (table.object[held] >= 0).all()
    assert set(np.flatnonzero(table.object < 0)) <= set(parts.train)
    assert set(table.object[parts.test]) <= set(table.object[np.concatenate([parts.train, parts.val])])
    if not shots:
        assert set(table.object[held]) <= set(table.object[parts.train])
    for key in (inspection.sha256, table.group):
        sides = [set(key[part]) - {""} for part in (parts.train, parts.val, parts.test)]
        assert sum(map(len, sides)) == len(set.union(*sides))
    for part in (parts.train, parts.val, parts.test):
        assert part.dtype == np.int64
        assert (np.diff(part) > 0).all()
    again = split(table, inspection, test=test, val=val, shots=shots, seed=3)
    assert all(np.array_equal(getattr(parts, k), getattr(again, k)) for k in ("train", "val", "test"))


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), min_size=40, max_size=150), st.integers(0, 9))
def test_stratified_to_within_one(pairs, seed):
    domain, obj = zip(*pairs, strict=True)
    parts = split(table_of(domain, obj), test=0.2, val=0.25, seed=seed)
    for cell in set(pairs):
        here = np.array([p == cell for p in pairs])
        assert abs(here[parts.test].sum() - 0.2 * here.sum()) < 1
        assert abs(here[parts.val].sum() - 0.25 * (here.sum() - here[parts.test].sum())) < 1


def test_sizes_are_exact():
    parts = split(table_of([0] * 100, [0, 1] * 50))
    assert (len(parts.test), len(parts.val), len(parts.train)) == (20, 16, 64)
    assert parts.notes == ()


def test_the_seed_matters_and_the_test_set_depends_on_nothing_after_it():
    table = table_of([0, 1] * 50, [0, 1] * 50)
    tests = {tuple(split(table, seed=s).test) for s in range(5)}
    assert len(tests) == 5
    same = {tuple(split(table, val=v, shots=k).test) for v in (0, 0.2) for k in (None, 1, 5)}
    assert len(same) == 1


def test_an_object_with_one_image_stays_in_train():
    parts = split(table_of([0] * 11, [0] * 10 + [1]), test=0.5, val=0.5)
    assert 10 in parts.train
    assert parts.notes == ("1 object with a single image, which stays in train: b",)


def test_shots_and_what_is_said_of_them():
    table = table_of([0] * 60 + [1] * 3, [0, 1] * 30 + [0] * 3)
    parts = split(table, shots=5, val=0.2)
    chosen = np.concatenate([parts.train, parts.val])
    cell = {(d, o): int(((table.domain == d) & (table.object == o))[chosen].sum()) for d in (0, 1) for o in (0, 1)}
    there = len(set(np.flatnonzero(table.domain == 1)) - set(parts.test))
    assert cell == {(0, 0): 5, (0, 1): 5, (1, 0): there, (1, 1): 0}
    assert len(parts.val) == round(0.2 * len(chosen))
    assert parts.notes == ("1 of 3 cells have fewer than 5 labels (such as oil/a): all are used",)
    one = split(table, shots=1)
    assert len(one.val) == 0
    assert len(one.train) == 3
    assert one.notes == ("with one label per class and domain there is no validation image",)


def test_a_given_split_is_kept():
    given_ = ["train"] * 10 + ["test"] * 4 + [""] * 6
    parts = split(table_of([0] * 20, [0, 1] * 10, given_), val=0.25)
    assert parts.test.tolist() == [10, 11, 12, 13]
    assert len(parts.val) == 4
    assert parts.notes == ("the split that comes with the set is used; it has no val, sampled from its train",)
    given_ = ["val"] * 5 + ["train"] * 15
    parts = split(table_of([0] * 20, [0, 1] * 10, given_), test=0.2)
    assert parts.val.tolist() == [0, 1, 2, 3, 4]
    assert len(parts.test) == 3
    assert parts.notes == ("the split that comes with the set is used; it has no test, sampled from its train",)


def test_copies_of_given_test_images_are_learnt_by_no_one():
    given_ = ["test", "test", "val", "val"] + ["train"] * 8
    inspection = seen([0, 1, 0, 2, 1, 2, 6, 7, 8, 9, 10, 11])
    parts = split(table_of([0] * 12, [0, 1] * 6, given_), inspection)
    assert parts.test.tolist() == [0, 1]
    assert parts.val.tolist() == [3]
    assert parts.train.tolist() == [6, 7, 8, 9, 10, 11]
    assert "3 images of train and val dropped: duplicates of, or grouped with, held-out images" in parts.notes


def test_an_unlabelled_copy_of_a_given_test_image_is_dropped_too():
    table = table_of([0] * 10, [0, 1, -1, -1, 0, 1, 0, 1, 0, 1], ["test", "test"] + ["train"] * 8)
    parts = split(table, seen([0, 1, 0, 3, 4, 5, 6, 7, 8, 9]), val=0.0)
    assert parts.test.tolist() == [0, 1]
    assert parts.train.tolist() == [3, 4, 5, 6, 7, 8, 9]
    assert "1 image of train and val dropped: duplicates of, or grouped with, held-out images" in parts.notes


def test_shots_are_drawn_with_the_seed():
    """Also where the test set is given, and nothing else is drawn."""
    table = table_of([0] * 22, [0, 1] * 11, ["test"] * 2 + ["train"] * 20)
    drawn = {seed: tuple(split(table, val=0.0, shots=3, seed=seed).train) for seed in range(6)}
    assert len(set(drawn.values())) > 3
    assert drawn[5] == tuple(split(table, val=0.0, shots=3, seed=5).train)
    assert {len(rows) for rows in drawn.values()} == {6}


@pytest.mark.parametrize(("domains", "where"), [((0, 1), "ink/b"), ((1, 2), "oil/b"), ((-1, 0), "b")])
def test_the_first_cell_with_too_few_shots_is_named(domains, where):
    table = table_of([domains[0]] * 3 + [domains[1]] * 3, [0, 0, 1, 0, 1, 1])
    parts = split(table, test=0.0, val=0.0, shots=2)
    assert f"2 of 4 cells have fewer than 2 labels (such as {where}): all are used" in parts.notes


def test_near_duplicates_are_counted_and_on_request_kept_together():
    n = 60
    hashes = np.repeat(np.random.default_rng(0).integers(0, 2**63, n // 2), 2) ^ np.tile([0, 1], n // 2)
    table, inspection = table_of([0] * n, [0] * n), seen(list(range(n)), hashes)
    parts = split(table, inspection)
    group = np.arange(n) // 2
    twins = np.isin(group[parts.test], group[np.concatenate([parts.train, parts.val])]).sum()
    assert twins > 0
    assert f"{twins} of {len(parts.test)} test images have a near-duplicate" in parts.notes[-1]
    parts = split(table, inspection, keep_near_duplicates_together=True)
    assert len(parts.test) == 12
    assert not set(group[parts.test]) & set(group[np.concatenate([parts.train, parts.val])])
    assert parts.notes == ()


def test_a_copy_of_an_unlabelled_image_is_not_tested_on():
    table = table_of([0] * 20, [-1] + [0] * 19)
    for seed in range(5):
        parts = split(table, seen([0] * 10 + list(range(10, 20))), test=0.4, seed=seed)
        assert set(range(10)) <= set(parts.train)
    assert "1 image of unknown object in train, unlabelled" in parts.notes


def test_images_of_a_given_test_or_val_without_an_object_are_not_trained_on():
    given = ["train"] * 4 + ["val"] * 2 + ["test"] * 2 + ["train", "val", "test", "test"]
    table = table_of([0] * 12, [0, 1] * 4 + [-1] * 4, given)
    parts = split(table)
    assert parts.train.tolist() == [0, 1, 2, 3, 8]
    assert "3 images of the given val and test without an object: not used" in parts.notes


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"test": 1.0}, "test is 1.0"),
        ({"val": -0.1}, "val is -0.1"),
        ({"shots": 0}, "shots is 0"),
        ({"keep_near_duplicates_together": True}, "needs an inspection"),
    ],
)
def test_bad_options(options, words):
    with pytest.raises(TransferError, match=words):
        split(table_of([0], [0]), **options)


def test_masked_labels_are_gone_and_the_domain_is_not():
    age = Target(np.array([1.0, 2.0, 3.0]), "regression")
    table = table_of([0, 1, 2], [0, 1, 2], age=age)
    masked = mask_labels(table, np.array([0, 2]))
    assert masked.object.tolist() == [-1, 1, -1]
    assert masked.domain.tolist() == [0, 1, 2]
    np.testing.assert_array_equal(masked.targets["age"].values, [np.nan, 2, np.nan])
    assert mask_labels(table, np.array([0]), keep=()).domain.tolist() == [-1, 1, 2]
    assert table.object.tolist() == [0, 1, 2]
    few = draw_few_labels(np.arange(3), masked, 1, 0)
    assert few.tolist() == [1]


def test_real_sets():
    for name in ("office31", "flowers12"):
        if not (SHARED / "data" / name).is_dir():
            pytest.skip(f"{SHARED / 'data' / name} is not here")
    table = read_folder(SHARED / "data" / "office31")
    inspection = inspect_files(table)
    for together in (False, True):
        parts = split(table, inspection, keep_near_duplicates_together=together)
        assert (len(parts.test), len(parts.val), len(parts.train)) == (822, 658, 2630)
        assert not set(inspection.sha256[parts.test]) & set(inspection.sha256[parts.train])
    near = group_near_duplicates(inspection)
    assert not set(near[parts.test]) & set(near[parts.train])
    flowers = read_folder(SHARED / "data" / "flowers12")
    notes = split(flowers, inspect_files(flowers)).notes
    assert any(note.startswith("23 of 240 test images have a near-duplicate") for note in notes)


@settings(deadline=None)
@given(sets(), st.sampled_from([0, 0.2, 0.5]), st.sampled_from([0, 0.4]), st.integers(1, 3))
def test_the_rest_of_a_draw_stays_in_train_without_duplicates_of_what_is_held_out(images, test, val, shots):
    table, inspection = images
    plain = split(table, inspection, test=test, val=val, shots=shots, seed=3)
    kept = split(table, inspection, test=test, val=val, shots=shots, seed=3, keep_rest=True)
    assert kept.val.tolist() == plain.val.tolist()
    assert kept.test.tolist() == plain.test.tolist()
    assert np.setdiff1d(kept.train, kept.rest).tolist() == plain.train.tolist()
    assert set(kept.rest) <= set(kept.train)
    assert not len(plain.rest)
    held = np.concatenate([kept.val, kept.test])
    for key in (inspection.sha256, table.group):
        assert not set(key[kept.rest]) - {""} & set(key[held])
    if not len(held):
        assert len(kept.train) == len(table)


@settings(deadline=None)
@given(sets(), st.sampled_from([0, 0.2, 0.5]), st.sampled_from([0, 0.4]))
def test_added_rows_give_way_to_held_out_images(images, test, val):
    table, inspection = images
    n = len(table)
    twice = table.take(np.concatenate([np.arange(n), np.arange(n)]))  # once more, without any label or group
    targets = {k: replace(t, values=np.where(np.arange(2 * n) < n, t.values, -1)) for k, t in twice.targets.items()}
    twice = replace(twice, targets=targets, group=np.where(np.arange(2 * n) < n, twice.group, ""))
    added = np.arange(2 * n) >= n
    both = split(twice, inspection.take(np.r_[:n, :n]), test=test, val=val, seed=3, added=added)
    plain = split(table, inspection, test=test, val=val, seed=3)
    assert both.test.tolist() == plain.test.tolist()
    assert both.val.tolist() == plain.val.tolist()
    assert [row for row in both.train if row < n] == plain.train.tolist()
    counted = np.concatenate([plain.val, plain.test, plain.train[table.object[plain.train] >= 0]])
    expected = ~np.isin(inspection.sha256, inspection.sha256[counted])
    assert any("dropped: duplicates of images with one" in note for note in both.notes) == (not expected.all())
    assert (both.train[both.train >= n] - n).tolist() == np.flatnonzero(expected).tolist()
    assert both.added.tolist() == both.train[both.train >= n].tolist()
    assert both.plain_train.tolist() == plain.train.tolist()


def test_rest_without_an_image_that_lacks_a_label_is_noted():
    """Not where --shots leaves images over, and not without --unlabelled."""
    table = table_of([0] * 8, [0, 1] * 4)
    note = "--unlabelled rest: every training image has a label, so it changes nothing"
    assert note in split(table, keep_rest=True).notes
    assert note not in split(table).notes
    assert note not in split(table, shots=1, keep_rest=True).notes
