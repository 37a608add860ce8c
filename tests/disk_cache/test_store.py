"""What was appended under a key comes back, row by row, and never under another."""

import hashlib
import os
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transfer.disk_cache import CannotKeep, Located, Shelf, Store
from transfer.disk_cache import shelf as shelf_module
from transfer.errors import TransferError
from transfer.runtime.files import get_cache_folder

SHAPE = (3, 2)


def digests(numbers: Sequence[int]) -> np.ndarray:
    return np.array([hashlib.sha256(str(i).encode()).hexdigest() for i in numbers], dtype="U64")


def values(numbers: Sequence[int]) -> np.ndarray:
    """Six numbers that belong to each."""
    return np.array([np.random.default_rng(i).normal(size=SHAPE) for i in numbers], "float32").reshape(-1, *SHAPE)


def fill(shelf: Shelf, numbers: Sequence[int]) -> None:
    with shelf.writing() as writer:
        writer.append(digests(numbers), values(numbers))


def is_right(located: Located, numbers: Sequence[int]) -> bool:
    rows = np.flatnonzero(located.have)
    return np.array_equal(located.take(rows), values([numbers[row] for row in rows]))


def segments(store: Store) -> list[Path]:
    return sorted(store.root.rglob("*.rows"))


@pytest.fixture
def shelf(tmp_path: Path) -> Callable[..., Shelf]:
    """Make a shelf of a new store, as another process would see it."""

    def make(about: dict[str, Any] | None = None, limit: int = 1 << 30, kind: str = "trunk", **how: Any) -> Shelf:
        store = Store(tmp_path / "rows", limit)
        return store.shelf(kind, about or {"weights": "a"}, **{"shape": SHAPE, "dtype": "float32", **how})

    return make


numbers = st.lists(st.integers(0, 30), max_size=40)


@settings(deadline=None, max_examples=40)
@given(appends=st.lists(numbers, max_size=3), wanted=numbers, order=st.randoms(), per=st.integers(5, 50))
def test_what_was_appended_is_found_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, appends: list[list[int]], wanted: list[int], order: Any, per: int
) -> None:
    root = tmp_path_factory.mktemp("rows")
    writing = Store(root).shelf("trunk", {}, SHAPE, "float32")
    writing.segment_rows = per
    with writing.writing() as writer:
        for some in appends:
            writer.append(digests(some), values(some))
    there = {number for some in appends for number in some}
    for one in (writing, Store(root).shelf("trunk", {}, SHAPE, "float32")):
        located = one.locate(digests(wanted))
        assert located.have.tolist() == [number in there for number in wanted]
        rows = [row for row, number in enumerate(wanted) if number in there]
        order.shuffle(rows)
        taken = located.take(np.array(rows, dtype=np.int64))
        assert np.array_equal(taken, values([wanted[row] for row in rows]))


def test_rows_are_a_fresh_contiguous_copy(shelf: Callable[..., Shelf]) -> None:
    fill(shelf(), [1, 2])
    located = shelf().locate(digests([1, 2]))
    taken = located.take(np.array([1, 0, 1]))
    assert taken.flags.carray  # contiguous, aligned, writeable
    taken[:] = 0
    assert is_right(located, [1, 2])


def test_asking_for_a_row_that_is_not_kept_is_an_error(shelf: Callable[..., Shelf]) -> None:
    fill(shelf(), [1])
    located = shelf().locate(digests([0, 1]))
    with pytest.raises(KeyError, match="row 0"):
        located.take(np.array([1, 0]))


@pytest.mark.parametrize("dtype", ["float16", "uint8", ">i4", [("phash", "<u8"), ("name", "<U5", (2,))]])
@pytest.mark.parametrize("shape", [(), (1,), (4, 2)])
def test_any_plain_type_of_any_shape(shelf: Callable[..., Shelf], dtype: Any, shape: tuple[int, ...]) -> None:
    rows = np.zeros((3, *shape), dtype)
    flat = rows.reshape(-1)
    flat[:] = np.array([(i, ("é", "b")) for i in range(flat.size)], dtype) if rows.dtype.names else np.arange(flat.size)
    with shelf(shape=shape, dtype=dtype).writing() as writer:
        writer.append(digests([0, 1, 2]), rows)
    taken = shelf(shape=shape, dtype=dtype).locate(digests([2, 0])).take(np.array([0, 1]))
    assert taken.dtype == rows.dtype
    assert taken.tobytes() == rows[[2, 0]].tobytes()


def test_objects_and_empty_rows_are_refused(shelf: Callable[..., Shelf]) -> None:
    for how in ({"dtype": object}, {"shape": (0, 2)}, {"dtype": [("a", object)]}):
        with pytest.raises(ValueError, match="cannot be kept"):
            shelf(**how)


def test_what_does_not_belong_on_a_shelf_is_refused(shelf: Callable[..., Shelf]) -> None:
    with shelf().writing() as writer:
        for wrong in (values([1]).astype("float64"), values([1, 2]), values([1])[0], values([1]).reshape(1, 2, 3)):
            with pytest.raises(ValueError, match="rows of"):
                writer.append(digests([1]), wrong)
        for name in ("a" * 63, "g" * 64, "a" * 65, "", " " * 64):
            with pytest.raises(ValueError, match=r"sha256|hexadecimal"):
                writer.append([name], values([1]))
    with pytest.raises(ValueError, match="sha256"):
        shelf().locate(["a" * 62, "a" * 66])


def test_another_key_shape_or_type_misses(shelf: Callable[..., Shelf]) -> None:
    about = {"weights": "a", "crop": [224, 224], "view": None}
    fill(shelf(about), [1])
    assert shelf(dict(reversed(about.items()))).locate(digests([1])).have.all()
    assert shelf({**about, "crop": (224, 224)}).locate(digests([1])).have.all()
    for change in (
        {"about": {**about, "weights": "b"}},
        {"about": {**about, "crop": [224, 225]}},
        {"about": {**about, "view": 0}},
        {"about": {**about, "more": None}},
        {"kind": "other"},
        {"shape": (2, 3)},
        {"shape": (6,)},
        {"dtype": "int32"},
        {"dtype": ">f4"},
    ):
        assert not shelf(**{"about": about, **change}).locate(digests([1])).have.any(), change


def test_the_key_is_plain_json(shelf: Callable[..., Shelf]) -> None:
    with pytest.raises(TypeError):
        shelf({"weights": b"a"})
    with pytest.raises(ValueError, match="JSON"):
        shelf({"mean": float("nan")})


def test_images_added_cost_only_themselves(shelf: Callable[..., Shelf]) -> None:
    fill(shelf(), range(5))
    before = segments(shelf().store)
    missing = np.flatnonzero(~shelf().locate(digests(range(8))).have)
    assert missing.tolist() == [5, 6, 7]
    fill(shelf(), missing.tolist())
    assert set(before) < set(segments(shelf().store))
    located = shelf().locate(digests(range(8)))
    assert located.have.all()
    assert is_right(located, range(8))


def test_a_long_run_is_kept_piece_by_piece(shelf: Callable[..., Shelf], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf_module, "SEGMENT_BYTES", 4 * (24 + 36))
    with shelf().writing() as writer:
        for start in range(0, 10, 5):
            some = range(start, start + 5)
            writer.append(digests(some), values(some))
        assert shelf().locate(digests(range(10))).have.tolist() == [True] * 8 + [False] * 2
    located = shelf().locate(digests(range(10)))
    assert located.have.all()
    assert is_right(located, range(10))
    assert len(segments(shelf().store)) == 3


def test_rows_are_checked_once(shelf: Callable[..., Shelf], monkeypatch: pytest.MonkeyPatch) -> None:
    fill(shelf(), range(5))
    one = shelf()
    one.locate(digests(range(3)))
    checked: list[Any] = []
    monkeypatch.setattr(zlib, "crc32", lambda row: checked.append(row) or 0)
    assert is_right(one.locate(digests(range(3))), range(3))
    assert checked == []
    one.locate(digests(range(5)))
    assert len(checked) == 2


def test_rows_let_go_are_read_again(shelf: Callable[..., Shelf], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf_module, "_MAPPED", 40)
    fill(shelf(), range(5))
    located = shelf().locate(digests(range(5)))
    assert all(is_right(located, range(5)) for _ in range(3))


def test_shelves_are_listed_the_last_used_first(shelf: Callable[..., Shelf]) -> None:
    fill(shelf({"name": "ä"}), [1, 2, 3])
    fill(shelf({"name": "ä"}), [4])
    fill(shelf(kind="inspection"), [1])
    store = shelf().store
    for i, path in enumerate(segments(store)):
        os.utime(path, (1000 + i, 1000 + i))
    old, new = sorted(store.shelves(), key=lambda info: info.kind, reverse=True)
    assert (old.kind, old.about, old.rows) == ("trunk", {"name": "ä"}, 4)
    assert old.bytes == sum(path.stat().st_size for path in old.folder.glob("*.rows")) == 4 * (24 + 36) + 2 * 32
    assert (new.kind, new.about, new.rows, new.last_used) == ("inspection", {"weights": "a"}, 1, 1000)
    assert [info.kind for info in store.shelves()] == ["trunk", "inspection"]
    shelf(kind="inspection").locate(digests([1]))
    assert [info.kind for info in store.shelves()] == ["inspection", "trunk"]


def test_clear_removes_one_kind_or_all(shelf: Callable[..., Shelf]) -> None:
    fill(shelf(), [1])
    fill(shelf({"weights": "b"}), [1])
    fill(shelf(kind="inspection"), [1])
    store = shelf().store
    assert store.clear("inspect") == (0, 0)
    assert store.clear("inspection") == (1, 24 + 36 + 32)
    assert not (store.root / "inspection").exists()
    assert [info.kind for info in store.shelves()] == ["trunk", "trunk"]
    assert store.clear() == (2, 2 * (24 + 36 + 32))
    assert list(store.root.rglob("*")) == []
    assert Store(store.root / "never").clear() == (0, 0)


def test_the_longest_unused_goes_first(shelf: Callable[..., Shelf]) -> None:
    each = 10 * (24 + 36) + 32
    for number, name in enumerate("abc"):
        fill(shelf({"name": name}), range(10))
        os.utime(next(shelf({"name": name}).folder.glob("*.rows")), (number, number))
    shelf({"name": "a"}).locate(digests([3]))  # so b was not used for longest
    fill(shelf({"name": "d"}, limit=3 * each + 99), range(10))
    kept = [shelf({"name": name}).locate(digests(range(10))).have.all() for name in "abcd"]
    assert kept == [True, False, True, True]
    assert not shelf({"name": "b"}).folder.exists()


def test_what_is_open_here_is_not_removed(shelf: Callable[..., Shelf]) -> None:
    each = 10 * (24 + 36) + 32
    fill(shelf({"name": "a"}), range(10))
    fill(shelf({"name": "b"}), range(10))
    store = Store(shelf().store.root, 2 * each + 99)
    a, c = (store.shelf("trunk", {"name": name}, SHAPE, "float32") for name in "ac")
    a.locate(digests([0]))
    for path in a.folder.glob("*.rows"):
        os.utime(path, (0, 0))
    fill(c, range(10))
    assert [shelf({"name": name}).locate(digests([0])).have[0] for name in "abc"] == [True, False, True]
    assert store.fits(0)
    assert not store.fits(100)  # what was just written is not removed either
    del a
    assert store.fits(each)
    assert not store.fits(each + 100)


def test_a_limit_is_never_passed(shelf: Callable[..., Shelf]) -> None:
    limit = 20 * (24 + 36)
    for start in range(0, 60, 5):
        fill(shelf({"name": start}, limit=limit), range(start, start + 5))
        assert sum(path.stat().st_size for path in segments(shelf().store)) <= limit
    assert len(segments(shelf().store)) == 3


def test_what_can_never_fit_drives_nothing_out(shelf: Callable[..., Shelf]) -> None:
    fill(shelf(), range(3))
    large = shelf({"name": "large"}, limit=1000)
    with pytest.raises(CannotKeep, match=r"do not fit in the cache .*rows"), large.writing(1000):
        raise AssertionError
    assert shelf().locate(digests(range(3))).have.all()
    with pytest.raises(CannotKeep, match="do not fit"), large.writing() as writer:
        writer.append(digests(range(1000)), values(range(1000)))
    assert 0 < large.locate(digests(range(1000))).have.sum() < 16
    assert list(large.folder.glob(".*")) == []


def test_room_is_made_at_once_for_rows_that_are_announced(shelf: Callable[..., Shelf]) -> None:
    fill(shelf(), range(10))
    limited = shelf({"name": "next"}, limit=12 * (24 + 36) + 12 * 32)
    with limited.writing(12) as writer:
        assert segments(limited.store) == []
        for i in range(12):
            writer.append(digests([i]), values([i]))
    assert limited.locate(digests(range(12))).have.all()


def test_the_limit_and_the_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TRANSFER_CACHE", str(tmp_path))
    assert Store().root == get_cache_folder("rows") == tmp_path / "rows"
    with pytest.raises(TransferError, match="limit is 0 bytes"):
        Store(limit=0)


def test_verify_finds_nothing_wrong_with_what_is_sound(shelf: Callable[..., Shelf]) -> None:
    fill(shelf(), range(3))
    fill(shelf(kind="inspection"), range(3))
    assert shelf().store.verify() == []
    assert shelf().locate(digests(range(3))).have.all()
