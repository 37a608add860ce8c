"""Folders of rows: named by what they hold, listed oldest first, gone with their last file."""

import json
import os
from pathlib import Path

import pytest

from transfer.disk_cache.folder import files_in, key_of, record_of, remove


def shelf(root: Path, record: dict[str, object]) -> Path:
    folder = root / "trunk" / key_of(record)[:32]
    folder.mkdir(parents=True)
    (folder / "about.json").write_text(json.dumps(record))
    return folder


def test_key_does_not_depend_on_the_order_of_keys() -> None:
    assert key_of({"a": 1, "b": [2, 3]}) == key_of({"b": [2, 3], "a": 1})
    assert key_of({"a": 1, "b": [2, 3]}) != key_of({"a": 1, "b": [3, 2]})


def test_record_is_believed_only_under_its_own_name(tmp_path: Path) -> None:
    folder = shelf(tmp_path, {"cut": 3})
    assert record_of(folder) == {"cut": 3}
    (folder / "about.json").write_text('{"cut": 4}')
    assert record_of(folder) is None
    (folder / "about.json").write_text('{"cut": ')
    assert record_of(folder) is None
    (folder / "about.json").unlink()
    assert record_of(folder) is None


def test_files_come_longest_unused_first(tmp_path: Path) -> None:
    for name, used in (("b.rows", 20), ("a.rows", 30), ("c.rows", 10), ("d.part", 5)):
        (tmp_path / name).write_bytes(b"x" * used)
        os.utime(tmp_path / name, ns=(used, used))
    assert [(used, size, path.name) for used, size, path in files_in(tmp_path, "*.rows")] == [
        (10, 10, "c.rows"),
        (20, 20, "b.rows"),
        (30, 30, "a.rows"),
    ]
    assert files_in(tmp_path / "missing", "*.rows") == []


def test_remove_takes_the_folders_with_the_last_file(tmp_path: Path) -> None:
    folder = shelf(tmp_path, {"cut": 3})
    first, last = folder / "1.rows", folder / "2.rows"
    first.touch()
    last.touch()
    assert remove(first)
    assert (folder / "about.json").exists()
    assert not remove(first)
    assert remove(last)
    assert not folder.parent.exists()
    assert tmp_path.exists()


def test_a_record_that_nests_without_end_is_none(tmp_path: Path) -> None:
    folder = shelf(tmp_path, {"cut": 3})
    (folder / "about.json").write_text("[" * 100_000)
    assert record_of(folder) is None


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_is_no_file_of_rows(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.rows")
    (tmp_path / "b.rows").touch()
    assert [path.name for _, _, path in files_in(tmp_path, "*.rows")] == ["b.rows"]
