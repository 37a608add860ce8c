"""Damage, foreign files and interrupts: rows are correct or missing, and can be written again."""

import contextlib
import logging
import os
import pickle
import shutil
import sys
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numbered_rows import WIDTH, cached, digests, fill, open_rows_in, values
from tqdm import tqdm

from transfer.disk_cache import CacheWriteError, DiskCache
from transfer.disk_cache import row_cache as row_cache_module
from transfer.disk_cache import segment_file as segment_file_module
from transfer.disk_cache.segment_file import ENTRY, DamagedSegment, Segment, find_rows, pack_digests

N = 6
SIZE = N * (4 * WIDTH + 36) + 32  # bytes of a segment of N rows


def segment(root: Path) -> Path:
    (path,) = root.rglob("*.rows")
    return path


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with one segment of N rows."""
    root = tmp_path_factory.mktemp("sound")
    fill(open_rows_in(root), range(N))
    assert segment(root).stat().st_size == SIZE
    return root


@pytest.fixture
def root(sound: Path, tmp_path: Path) -> Path:
    return shutil.copytree(sound, tmp_path / "copy")


def is_rebuilt(root: Path, file: Path) -> bool:
    """Return whether `file` was removed and its rows can be written again."""
    gone = not file.exists() and cached(root, range(N)) == [False] * N
    fill(open_rows_in(root), range(N))
    return gone and cached(root, range(N)) == [True] * N and DiskCache(root).verify() == []


@settings(deadline=None, max_examples=60)
@given(at=st.integers(0, SIZE * 8 - 1), verified=st.booleans())
def test_a_flipped_bit_is_noticed_wherever_it_is(
    sound: Path, tmp_path_factory: pytest.TempPathFactory, at: int, verified: bool
) -> None:
    root = shutil.copytree(sound, tmp_path_factory.mktemp("flipped") / "copy")
    file = segment(root)
    content = bytearray(file.read_bytes())
    content[at // 8] ^= 1 << at % 8
    file.write_bytes(content)
    if verified:
        ((found, reason),) = DiskCache(root).verify()
        assert found == file
        assert "damaged" in reason
    else:
        assert cached(root, range(N)) == [False] * N
    assert is_rebuilt(root, file)


@settings(deadline=None, max_examples=40)
@given(length=st.integers(0, 2 * SIZE).filter(lambda length: length != SIZE))
def test_a_file_of_another_length_is_noticed(
    sound: Path, tmp_path_factory: pytest.TempPathFactory, length: int
) -> None:
    root = shutil.copytree(sound, tmp_path_factory.mktemp("cut") / "copy")
    file = segment(root)
    content = file.read_bytes()
    file.write_bytes((content + content)[:length])
    assert cached(root, range(N)) == [False] * N
    assert is_rebuilt(root, file)


@pytest.mark.parametrize("cut", [40 * 3, 40 * N, 40 * N + 36 * 3, SIZE - 32, SIZE - 1, SIZE + 76])
def test_a_file_cut_between_its_parts_is_noticed(root: Path, cut: int) -> None:
    file = segment(root)
    file.write_bytes((file.read_bytes() * 2)[:cut])
    assert cached(root, range(N)) == [False] * N
    assert is_rebuilt(root, file)


def test_only_requested_rows_are_checked_and_damage_is_one_warning(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = segment(root)
    content = bytearray(file.read_bytes())
    content[40 * 2 + 5] ^= 1
    file.write_bytes(content)
    assert cached(root, range(2)) == [True] * 2
    assert caplog.messages == []
    assert cached(root, range(1, 4)) == [False] * 3
    (message,) = caplog.messages
    assert caplog.records[0].levelno == logging.WARNING
    assert message.startswith(f"{file} is damaged in 1 of 3 rows: removed")
    assert "\n" not in message


def test_a_damaged_row_is_served_from_another_file_that_has_it(root: Path) -> None:
    for _ in range(3):
        fill(open_rows_in(root), range(N))
    files = sorted(root.rglob("*.rows"))
    for file in files[:3]:
        content = bytearray(file.read_bytes())
        content[0] ^= 1
        file.write_bytes(content)
    assert cached(root, range(N)) == [True] * N
    assert list(root.rglob("*.rows")) == files[3:]


def test_a_damaged_file_that_cannot_be_removed_is_a_miss(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = segment(root)
    file.write_bytes(b"?" + file.read_bytes()[1:])
    monkeypatch.setattr(row_cache_module, "remove_file", lambda path: False)
    rows_cache = open_rows_in(root)
    for _ in range(2):
        assert not rows_cache.locate(digests(range(N))).found.any()
    assert file.exists()


def damaged(file: Path, rows: Sequence[int]) -> None:
    content = bytearray(file.read_bytes())
    for row in rows:
        content[4 * WIDTH * row] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("part", [1, 4 * WIDTH, 100, 10_000])
def test_rows_are_checked_in_parts_of_any_size(
    root: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    monkeypatch.setattr(segment_file_module, "_BYTES_PER_CHECK", part)
    assert cached(root, range(N)) == [True] * N
    damaged(segment(root), (0, 2, 5))
    assert cached(root, range(N)) == [False] * N
    (message,) = caplog.messages
    assert f"is damaged in 3 of {N} rows: removed" in message


def test_sound_rows_say_nothing_of_others(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are checked once each; those that were not asked for before are checked when they are."""
    damaged(segment(root), (3,))
    checked: list[bytes] = []
    counted = SimpleNamespace(crc32=lambda row: (checked.append(bytes(row)), zlib.crc32(row))[1])
    monkeypatch.setattr(segment_file_module, "zlib", counted)
    opened, bar = Segment(segment(root), open_rows_in(root).key, 4 * WIDTH), tqdm(disable=True)
    for rows in ((0, 1), (1, 2), (4, 4), (0, 5)):
        opened.check(np.array(rows), bar)
    assert sorted(checked) == sorted(values(row)[0].tobytes() for row in ([0], [1], [2], [4], [5]))
    for _ in range(2):
        with pytest.raises(DamagedSegment, match="is damaged in 1 of 1 rows"):
            opened.check(np.array([0, 3, 3]), bar)


@given(st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=90), max_size=4), st.integers(0, 99))
def test_a_row_is_found_in_the_first_segment_that_has_it(contents: list[list[int]], seed: int) -> None:
    names = pack_digests(digests(range(31)))
    segments: Any = [SimpleNamespace(entries=np.array([(names[i], 0) for i in rows], ENTRY)) for rows in contents]
    asked = np.random.default_rng(seed).permutation(31)
    number, row = find_rows(names[asked], segments)
    for i, place, at in zip(asked.tolist(), number.tolist(), row.tolist(), strict=True):
        having = [n for n, rows in enumerate(contents) if i in rows]
        assert place == (having[0] if having else -1)
        assert not having or at == contents[place].index(i)


@pytest.mark.parametrize("lengths", [(63, 65), (64, 62), (0, 64), (66, 62), (64, 63, 65)])
def test_a_digest_is_64_hex_digits(lengths: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="not a sha256 in hex"):
        pack_digests(["a" * n for n in lengths])
    assert pack_digests(["ab" * 32, "0f" * 32]).tolist() == [b"\xab" * 32, b"\x0f" * 32]


class Bomb:
    def __reduce__(self) -> tuple:
        return os._exit, (3,)


@pytest.mark.parametrize("kind", ["empty", "random", "array", "objects", "pickle"])
def test_foreign_files_are_rejected_and_never_unpickled(root: Path, kind: str) -> None:
    file = segment(root)
    with file.open("wb") as out:
        if kind == "random":
            out.write(np.random.default_rng(0).bytes(SIZE))
        elif kind == "array":
            np.save(out, np.zeros((N, WIDTH)))
        elif kind == "objects":
            np.save(out, np.array([Bomb()] * N, dtype=object), allow_pickle=True)
        elif kind == "pickle":
            pickle.dump(Bomb(), out)
    assert cached(root, range(N)) == [False] * N
    assert is_rebuilt(root, file)


def test_a_segment_of_another_key_is_rejected(root: Path) -> None:
    file = segment(root)
    other = open_rows_in(root, {"weights": 2})
    fill(other, range(N))
    moved = other.folder / file.name
    shutil.copy(file, moved)
    located = open_rows_in(root, {"weights": 2}).locate(digests(range(N)))
    assert located.found.all()
    assert not moved.exists()
    shutil.copy(file, moved)
    assert [path for path, _ in DiskCache(root).verify()] == [moved]


@pytest.mark.parametrize("text", [None, "", "{}", "[", '{"format": 1}', "\udcff"])
def test_a_damaged_record_loses_rows_only_in_verify(root: Path, text: str | None) -> None:
    about = segment(root).with_name("about.json")
    if text is None:
        about.unlink()
    else:
        about.write_text(text, errors="surrogateescape")
    assert cached(root, range(N)) == [True] * N
    (info,) = DiskCache(root).list_entries()
    assert (info.about, info.rows, info.bytes) == ({}, 0, SIZE)
    ((_, reason),) = DiskCache(root).verify()
    assert "about.json" in reason
    assert cached(root, range(N)) == [False] * N
    assert list(root.rglob("*.rows")) == []


def test_a_damaged_record_is_written_again(root: Path) -> None:
    rows_cache = open_rows_in(root)
    with rows_cache.open_writer() as writer:
        writer.append(digests(range(N, N + 1)), values(range(N, N + 1)))
        (rows_cache.folder / "about.json").write_text("{}")
    (info,) = DiskCache(root).list_entries()
    assert info.rows == N + 1
    assert DiskCache(root).verify() == []


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_rows_appended_before_an_exception_are_committed(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), open_rows_in(tmp_path).open_writer() as writer:  # noqa: PT012
        writer.append(digests(range(3)), values(range(3)))
        raise error
    assert cached(tmp_path, range(4)) == [True] * 3 + [False]
    assert list(tmp_path.rglob(".*")) == []


def test_an_interrupt_at_any_line_loses_nothing(tmp_path: Path) -> None:
    """Ctrl-C before each line that runs while rows are written, one after the other."""
    line = stop = appended = 0
    tracer = sys.gettrace()

    def interrupt(frame: FrameType, event: str, _: object) -> Callable[..., Any] | None:
        nonlocal line
        if os.path.dirname(frame.f_code.co_filename) != os.path.dirname(row_cache_module.__file__):
            return None
        line += event == "line"
        if line == stop and event == "line":
            raise KeyboardInterrupt
        return interrupt

    while line >= stop:
        root, line, stop, appended = tmp_path / str(stop), 0, stop + 1, 0
        rows_cache = open_rows_in(root)
        rows_cache.segment_rows = 8
        with contextlib.suppress(KeyboardInterrupt), rows_cache.open_writer() as writer:
            sys.settrace(interrupt)
            for batch in (range(2), range(2, 10)):
                writer.append(digests(batch), values(batch))
                appended = batch.stop
        sys.settrace(tracer)
        assert all(cached(root, range(10))[:appended])
        assert DiskCache(root).verify() == list(root.rglob(".*")) == []
    assert stop > 150
    assert appended == 10


def test_a_part_file_of_another_process_stays(tmp_path: Path) -> None:
    with open_rows_in(tmp_path).open_writer() as writer:
        writer.append(digests(range(3)), values(range(3)))
        open_rows_in(tmp_path)
        assert len(list(tmp_path.rglob(".*.part"))) == 1
    assert cached(tmp_path, range(3)) == [True] * 3


def test_a_disk_full_at_the_very_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(CacheWriteError, match="No space left"), open_rows_in(tmp_path).open_writer() as writer:  # noqa: PT012
        writer.append(digests(range(3)), values(range(3)))
        monkeypatch.setattr(os, "fsync", full)
    monkeypatch.undo()
    assert list(tmp_path.rglob("*")) == []


@pytest.mark.usefixtures("unprivileged")
def test_a_read_only_folder(root: Path) -> None:
    folder = segment(root).parent
    folder.chmod(0o500)
    try:
        assert cached(root, range(N + 1)) == [True] * N + [False]
        with pytest.raises(CacheWriteError, match="Permission denied"):
            fill(open_rows_in(root), range(N, N + 1))
    finally:
        folder.chmod(0o700)


def test_a_cache_whose_root_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert not open_rows_in(tmp_path / "file").locate(digests(range(3))).found.any()
    with pytest.raises(CacheWriteError, match="cannot write"):
        fill(open_rows_in(tmp_path / "file"), range(3))
    assert DiskCache(tmp_path / "file").list_entries() == DiskCache(tmp_path / "file").verify() == []
