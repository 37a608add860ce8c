"""Folders of the disk cache: named by a hash of their record, listed by last use, removed with their last file."""

import json
import os
from pathlib import Path

import pytest

from transfer.disk_cache.folder import hash_record, list_files, read_record, remove_file


def make_folder(root: Path, record: dict[str, object]) -> Path:
    folder = root / "trunk" / hash_record(record)[:32]
    folder.mkdir(parents=True)
    (folder / "about.json").write_text(json.dumps(record))
    return folder


def test_key_does_not_depend_on_the_order_of_keys() -> None:
    assert hash_record({"a": 1, "b": [2, 3]}) == hash_record({"b": [2, 3], "a": 1})
    assert hash_record({"a": 1, "b": [2, 3]}) != hash_record({"a": 1, "b": [3, 2]})


def test_a_record_must_match_the_name_of_its_folder(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, {"cut": 3})
    assert read_record(folder) == {"cut": 3}
    (folder / "about.json").write_text('{"cut": 4}')
    assert read_record(folder) is None
    (folder / "about.json").write_text('{"cut": ')
    assert read_record(folder) is None
    (folder / "about.json").unlink()
    assert read_record(folder) is None


def test_files_are_listed_least_recently_used_first(tmp_path: Path) -> None:
    for name, used in (("b.rows", 20), ("a.rows", 30), ("c.rows", 10), ("d.part", 5)):
        (tmp_path / name).write_bytes(b"x" * used)
        os.utime(tmp_path / name, ns=(used, used))
    assert [(used, size, path.name) for used, size, path in list_files(tmp_path, "*.rows")] == [
        (10, 10, "c.rows"),
        (20, 20, "b.rows"),
        (30, 30, "a.rows"),
    ]
    assert list_files(tmp_path / "missing", "*.rows") == []


def test_removing_the_last_file_removes_the_folders(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, {"cut": 3})
    first, last = folder / "1.rows", folder / "2.rows"
    first.touch()
    last.touch()
    assert remove_file(first)
    assert (folder / "about.json").exists()
    assert not remove_file(first)
    assert remove_file(last)
    assert not folder.parent.exists()
    assert tmp_path.exists()


def test_a_deeply_nested_record_is_none(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, {"cut": 3})
    (folder / "about.json").write_text("[" * 100_000)
    assert read_record(folder) is None


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipes_are_not_listed(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.rows")
    (tmp_path / "b.rows").touch()
    assert [path.name for _, _, path in list_files(tmp_path, "*.rows")] == ["b.rows"]
