"""Rows appended under a key are found under that key and no other; the cache stays within its limit."""

import os
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numbered_rows import digests

from transfer.disk_cache import CacheWriteError, DiskCache, LocatedRows, RowCache
from transfer.disk_cache import cache as cache_module
from transfer.disk_cache import row_cache as row_cache_module
from transfer.errors import TransferError
from transfer.runtime.files import get_cache_folder

SHAPE = (3, 2)


def values(numbers: Sequence[int]) -> np.ndarray:
    """Return six values for each number."""
    return np.array([np.random.default_rng(i).normal(size=SHAPE) for i in numbers], "float32").reshape(-1, *SHAPE)


def fill(rows: RowCache, numbers: Sequence[int]) -> None:
    with rows.open_writer() as writer:
        writer.append(digests(numbers), values(numbers))


def is_correct(located: LocatedRows, numbers: Sequence[int]) -> bool:
    rows = np.flatnonzero(located.found)
    return np.array_equal(located.take(rows), values([numbers[row] for row in rows]))


def cache_of(rows: RowCache) -> DiskCache:
    """Return another view of the disk cache that `rows` belong to."""
    return DiskCache(rows.folder.parents[1])


def segments(disk_cache: DiskCache) -> list[Path]:
    return sorted(disk_cache.root.rglob("*.rows"))


@pytest.fixture
def open_rows(tmp_path: Path) -> Callable[..., RowCache]:
    """Return a function that opens rows as another process would."""

    def make(about: dict[str, Any] | None = None, limit: int = 1 << 30, kind: str = "trunk", **how: Any) -> RowCache:
        cache = DiskCache(tmp_path / "rows", limit)
        return cache.open_rows(kind, about or {"weights": "a"}, **{"shape": SHAPE, "dtype": "float32", **how})

    return make


numbers = st.lists(st.integers(0, 30), max_size=40)


@settings(deadline=None, max_examples=40)
@given(appends=st.lists(numbers, max_size=3), wanted=numbers, order=st.randoms(), per=st.integers(5, 50))
def test_appended_rows_are_found_and_no_others(
    tmp_path_factory: pytest.TempPathFactory, appends: list[list[int]], wanted: list[int], order: Any, per: int
) -> None:
    root = tmp_path_factory.mktemp("rows")
    writing = DiskCache(root).open_rows("trunk", {}, SHAPE, "float32")
    writing.segment_rows = per
    with writing.open_writer() as writer:
        for batch in appends:
            writer.append(digests(batch), values(batch))
    appended = {number for batch in appends for number in batch}
    for one in (writing, DiskCache(root).open_rows("trunk", {}, SHAPE, "float32")):
        located = one.locate(digests(wanted))
        assert located.found.tolist() == [number in appended for number in wanted]
        rows = [row for row, number in enumerate(wanted) if number in appended]
        order.shuffle(rows)
        taken = located.take(np.array(rows, dtype=np.int64))
        assert np.array_equal(taken, values([wanted[row] for row in rows]))


def test_rows_are_a_fresh_contiguous_copy(open_rows: Callable[..., RowCache]) -> None:
    fill(open_rows(), [1, 2])
    located = open_rows().locate(digests([1, 2]))
    taken = located.take(np.array([1, 0, 1]))
    assert taken.flags.carray  # contiguous, aligned, writeable
    taken[:] = 0
    assert is_correct(located, [1, 2])


def test_taking_a_missing_row_is_an_error(open_rows: Callable[..., RowCache]) -> None:
    fill(open_rows(), [1])
    located = open_rows().locate(digests([0, 1]))
    with pytest.raises(KeyError, match="row 0"):
        located.take(np.array([1, 0]))


@pytest.mark.parametrize("dtype", ["float16", "uint8", ">i4", [("phash", "<u8"), ("name", "<U5", (2,))]])
@pytest.mark.parametrize("shape", [(), (1,), (4, 2)])
def test_any_plain_type_of_any_shape(open_rows: Callable[..., RowCache], dtype: Any, shape: tuple[int, ...]) -> None:
    rows = np.zeros((3, *shape), dtype)
    flat = rows.reshape(-1)
    flat[:] = np.array([(i, ("é", "b")) for i in range(flat.size)], dtype) if rows.dtype.names else np.arange(flat.size)
    with open_rows(shape=shape, dtype=dtype).open_writer() as writer:
        writer.append(digests([0, 1, 2]), rows)
    taken = open_rows(shape=shape, dtype=dtype).locate(digests([2, 0])).take(np.array([0, 1]))
    assert taken.dtype == rows.dtype
    assert taken.tobytes() == rows[[2, 0]].tobytes()


def test_objects_and_empty_rows_are_refused(open_rows: Callable[..., RowCache]) -> None:
    for how in ({"dtype": object}, {"shape": (0, 2)}, {"dtype": [("a", object)]}):
        with pytest.raises(ValueError, match="cannot be cached"):
            open_rows(**how)


def test_rows_of_another_shape_and_malformed_digests_are_refused(open_rows: Callable[..., RowCache]) -> None:
    with open_rows().open_writer() as writer:
        for wrong in (values([1]).astype("float64"), values([1, 2]), values([1])[0], values([1]).reshape(1, 2, 3)):
            with pytest.raises(ValueError, match="rows of"):
                writer.append(digests([1]), wrong)
        for name in ("a" * 63, "g" * 64, "a" * 65, "", " " * 64):
            with pytest.raises(ValueError, match=r"sha256|hexadecimal"):
                writer.append([name], values([1]))
    with pytest.raises(ValueError, match="sha256"):
        open_rows().locate(["a" * 62, "a" * 66])


def test_another_key_shape_or_type_misses(open_rows: Callable[..., RowCache]) -> None:
    about = {"weights": "a", "crop": [224, 224], "view": None}
    fill(open_rows(about), [1])
    assert open_rows(dict(reversed(about.items()))).locate(digests([1])).found.all()
    assert open_rows({**about, "crop": (224, 224)}).locate(digests([1])).found.all()
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
        assert not open_rows(**{"about": about, **change}).locate(digests([1])).found.any(), change


def test_the_key_is_plain_json(open_rows: Callable[..., RowCache]) -> None:
    with pytest.raises(TypeError):
        open_rows({"weights": b"a"})
    with pytest.raises(ValueError, match="JSON"):
        open_rows({"mean": float("nan")})


def test_only_missing_rows_are_written(open_rows: Callable[..., RowCache]) -> None:
    fill(open_rows(), range(5))
    before = segments(cache_of(open_rows()))
    missing = np.flatnonzero(~open_rows().locate(digests(range(8))).found)
    assert missing.tolist() == [5, 6, 7]
    fill(open_rows(), missing.tolist())
    assert set(before) < set(segments(cache_of(open_rows())))
    located = open_rows().locate(digests(range(8)))
    assert located.found.all()
    assert is_correct(located, range(8))


def test_long_writes_complete_segments_on_the_way(
    open_rows: Callable[..., RowCache], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "MAX_SEGMENT_BYTES", 4 * (24 + 36))
    with open_rows().open_writer() as writer:
        for start in range(0, 10, 5):
            batch = range(start, start + 5)
            writer.append(digests(batch), values(batch))
        assert open_rows().locate(digests(range(10))).found.tolist() == [True] * 8 + [False] * 2
    located = open_rows().locate(digests(range(10)))
    assert located.found.all()
    assert is_correct(located, range(10))
    assert len(segments(cache_of(open_rows()))) == 3


def test_rows_are_checked_once(open_rows: Callable[..., RowCache], monkeypatch: pytest.MonkeyPatch) -> None:
    fill(open_rows(), range(5))
    one = open_rows()
    one.locate(digests(range(3)))
    checked: list[Any] = []
    monkeypatch.setattr(zlib, "crc32", lambda row: checked.append(row) or 0)
    assert is_correct(one.locate(digests(range(3))), range(3))
    assert checked == []
    one.locate(digests(range(5)))
    assert len(checked) == 2


def test_released_pages_are_read_again(open_rows: Callable[..., RowCache], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_cache_module, "MAX_MAPPED_BYTES", 40)
    fill(open_rows(), range(5))
    located = open_rows().locate(digests(range(5)))
    assert all(is_correct(located, range(5)) for _ in range(3))


def test_entries_are_listed_most_recently_used_first(open_rows: Callable[..., RowCache]) -> None:
    fill(open_rows({"name": "ä"}), [1, 2, 3])
    fill(open_rows({"name": "ä"}), [4])
    fill(open_rows(kind="inspection"), [1])
    cache = cache_of(open_rows())
    for i, path in enumerate(segments(cache)):
        os.utime(path, (1000 + i, 1000 + i))
    old, new = sorted(cache.list_entries(), key=lambda info: info.kind, reverse=True)
    assert (old.kind, old.about, old.rows) == ("trunk", {"name": "ä"}, 4)
    assert old.bytes == sum(path.stat().st_size for path in old.folder.glob("*.rows")) == 4 * (24 + 36) + 2 * 32
    assert (new.kind, new.about, new.rows, new.last_used) == ("inspection", {"weights": "a"}, 1, 1000)
    assert [info.kind for info in cache.list_entries()] == ["trunk", "inspection"]
    open_rows(kind="inspection").locate(digests([1]))
    assert [info.kind for info in cache.list_entries()] == ["inspection", "trunk"]


def test_clear_removes_one_kind_or_all(open_rows: Callable[..., RowCache]) -> None:
    fill(open_rows(), [1])
    fill(open_rows({"weights": "b"}), [1])
    fill(open_rows(kind="inspection"), [1])
    cache = cache_of(open_rows())
    assert cache.clear("inspect") == (0, 0)
    assert cache.clear("inspection") == (1, 24 + 36 + 32)
    assert not (cache.root / "inspection").exists()
    assert [info.kind for info in cache.list_entries()] == ["trunk", "trunk"]
    assert cache.clear() == (2, 2 * (24 + 36 + 32))
    assert list(cache.root.rglob("*")) == []
    assert DiskCache(cache.root / "never").clear() == (0, 0)


def test_the_least_recently_used_segment_is_removed_first(open_rows: Callable[..., RowCache]) -> None:
    each = 10 * (24 + 36) + 32
    for number, name in enumerate("abc"):
        fill(open_rows({"name": name}), range(10))
        os.utime(next(open_rows({"name": name}).folder.glob("*.rows")), (number, number))
    open_rows({"name": "a"}).locate(digests([3]))  # now b is the least recently used
    fill(open_rows({"name": "d"}, limit=3 * each + 99), range(10))
    cached = [open_rows({"name": name}).locate(digests(range(10))).found.all() for name in "abcd"]
    assert cached == [True, False, True, True]
    assert not open_rows({"name": "b"}).folder.exists()


def test_open_segments_are_not_removed(open_rows: Callable[..., RowCache]) -> None:
    each = 10 * (24 + 36) + 32
    fill(open_rows({"name": "a"}), range(10))
    fill(open_rows({"name": "b"}), range(10))
    cache = DiskCache(cache_of(open_rows()).root, 2 * each + 99)
    a, c = (cache.open_rows("trunk", {"name": name}, SHAPE, "float32") for name in "ac")
    a.locate(digests([0]))
    for path in a.folder.glob("*.rows"):
        os.utime(path, (0, 0))
    fill(c, range(10))
    assert [open_rows({"name": name}).locate(digests([0])).found[0] for name in "abc"] == [True, False, True]
    assert cache.fits(0)
    assert not cache.fits(100)  # nor are segments just written
    del a
    assert cache.fits(each)
    assert not cache.fits(each + 100)


def test_the_limit_is_never_exceeded(open_rows: Callable[..., RowCache]) -> None:
    limit = 20 * (24 + 36)
    for start in range(0, 60, 5):
        fill(open_rows({"name": start}, limit=limit), range(start, start + 5))
        assert sum(path.stat().st_size for path in segments(cache_of(open_rows()))) <= limit
    assert len(segments(cache_of(open_rows()))) == 3


def test_rows_that_can_never_fit_remove_nothing(open_rows: Callable[..., RowCache]) -> None:
    fill(open_rows(), range(3))
    large = open_rows({"name": "large"}, limit=1000)
    with pytest.raises(CacheWriteError, match=r"do not fit in the cache .*rows"), large.open_writer(1000):
        raise AssertionError
    assert open_rows().locate(digests(range(3))).found.all()
    with pytest.raises(CacheWriteError, match="do not fit"), large.open_writer() as writer:
        writer.append(digests(range(1000)), values(range(1000)))
    assert 0 < large.locate(digests(range(1000))).found.sum() < 16
    assert list(large.folder.glob(".*")) == []


def test_room_for_an_announced_number_of_rows_is_made_at_once(open_rows: Callable[..., RowCache]) -> None:
    fill(open_rows(), range(10))
    limited = open_rows({"name": "next"}, limit=12 * (24 + 36) + 12 * 32)
    with limited.open_writer(12) as writer:
        assert segments(cache_of(limited)) == []
        for i in range(12):
            writer.append(digests([i]), values([i]))
    assert limited.locate(digests(range(12))).found.all()


def test_default_folder_and_invalid_limit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TRANSFER_CACHE", str(tmp_path))
    assert DiskCache().root == get_cache_folder("rows") == tmp_path / "rows"
    with pytest.raises(TransferError, match="limit is 0 bytes"):
        DiskCache(limit=0)


def test_verify_reports_no_problem_in_sound_segments(open_rows: Callable[..., RowCache]) -> None:
    fill(open_rows(), range(3))
    fill(open_rows(kind="inspection"), range(3))
    assert cache_of(open_rows()).verify() == []
    assert open_rows().locate(digests(range(3))).found.all()


def test_rows_that_are_open_are_opened_and_checked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk_cache = DiskCache(tmp_path)
    rows = disk_cache.open_rows("trunk", {"weights": "a"}, SHAPE, "float32")
    fill(rows, [1, 2])
    checked: list[bytes] = []
    real = zlib.crc32
    monkeypatch.setattr(zlib, "crc32", lambda content: checked.append(bytes(content)) or real(content))
    same = disk_cache.open_rows("trunk", {"weights": "a"}, SHAPE, "float32")
    assert same is rows
    assert is_correct(same.locate(digests([1, 2])), [1, 2])
    assert is_correct(disk_cache.open_rows("trunk", {"weights": "a"}, SHAPE, "float32").locate(digests([2, 1])), [2, 1])
    assert len(checked) == 2
    assert disk_cache.open_rows("trunk", {"weights": "b"}, SHAPE, "float32") is not rows
    assert DiskCache(tmp_path).open_rows("trunk", {"weights": "a"}, SHAPE, "float32") is not rows


def test_only_the_last_rows_stay_open_by_themselves(tmp_path: Path) -> None:
    disk_cache = DiskCache(tmp_path)
    fill(disk_cache.open_rows("trunk", {"weights": "a"}, SHAPE, "float32"), [1])
    assert len(disk_cache._in_use()) == 1
    disk_cache.open_rows("trunk", {"weights": "b"}, SHAPE, "float32")
    assert not disk_cache._in_use()
