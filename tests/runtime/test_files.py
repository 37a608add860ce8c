import json
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transfer.errors import TransferError
from transfer.runtime.files import (
    atomic_write,
    get_cache_folder,
    open_regular,
    open_text,
    read_json,
    write_json,
    write_text,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def test_a_new_file_and_its_folders(tmp_path: Path) -> None:
    file = tmp_path / "a" / "b" / "c.txt"
    write_text(file, "grüß")
    assert file.read_bytes() == "grüß".encode()
    assert os.listdir(file.parent) == ["c.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_what_breaks_off_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    file = tmp_path / "kept.txt"
    file.write_text("old")
    with pytest.raises(error), atomic_write(file) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise error
    assert file.read_text() == "old"
    assert os.listdir(tmp_path) == ["kept.txt"]


def test_the_file_appears_only_at_the_end(tmp_path: Path) -> None:
    file = tmp_path / "new.txt"
    with atomic_write(file) as temporary:
        temporary.write_text("all of it")
        assert temporary.parent == file.parent  # a rename across file systems would not be atomic
        assert not file.exists()
    assert file.read_text() == "all of it"


def test_it_is_flushed_to_disk_before_it_is_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (done.append("flush"), fsync(handle))[1])
    monkeypatch.setattr(Path, "replace", lambda self, to: (done.append("rename"), replace(self, to))[1])
    write_text(tmp_path / "x", "text")
    assert done == ["flush", "rename"]


def test_permissions_are_those_of_any_new_file(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "x", "text")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o640


@pytest.mark.parametrize("place", ["file/below", "folder"])
def test_what_cannot_be_written_is_one_line(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder").mkdir()
    with pytest.raises(TransferError, match="cannot write") as caught:
        write_text(tmp_path / place, "text")
    assert str(tmp_path / place) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


@given(value=JSON)
def test_json_round_trip(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    file = tmp_path_factory.mktemp("json") / "x.json"
    write_json(file, value)
    assert json.loads(file.read_text(encoding="utf-8")) == value
    assert file.read_text(encoding="utf-8").endswith("\n")


def test_a_list_of_numbers_is_one_line(tmp_path: Path) -> None:
    value = {"matrix": [[1, 2], [-3.5, 4e-9]], "none": [], "text": ["[\n 1\n]", 1], "mixed": [1, None]}
    write_json(tmp_path / "x.json", value)
    lines = (tmp_path / "x.json").read_text().splitlines()
    assert lines[1:5] == ['  "matrix": [', "    [1, 2],", "    [-3.5, 4e-09]", "  ],"]
    assert lines[6:9] == ['  "text": [', '    "[\\n 1\\n]",', "    1"]  # words and numbers as ever
    assert json.loads("\n".join(lines)) == value


def test_a_value_that_is_no_json_leaves_the_old_file(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", 1)
    with pytest.raises(TypeError):
        write_json(tmp_path / "x.json", {1, 2})
    assert json.loads((tmp_path / "x.json").read_text()) == 1


def test_the_cache_lies_where_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRANSFER_CACHE", "~/here")
    assert get_cache_folder("digits", "v1") == Path.home() / "here" / "digits" / "v1"
    monkeypatch.setenv("TRANSFER_CACHE", "")
    assert get_cache_folder().name == "transfer"
    monkeypatch.delenv("TRANSFER_CACHE")
    assert get_cache_folder().is_absolute()


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 300 + b"1" + b"}" * 300, b"9" * 10_000, b"[1]"],
    ids=["nothing", "half", "no text", "depth", "some depth", "digits", "a list"],
)
def test_json_from_elsewhere_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(TransferError, match=r"cannot read .*x\.json as JSON: ") as caught:
        read_json(tmp_path / "x.json")
    assert len(str(caught.value)) < 500


@given(value=JSON)
def test_json_is_read_as_it_was_written(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    file = tmp_path_factory.mktemp("json") / "x.json"
    write_json(file, value)
    assert read_json(file, object) == value


def test_names_that_are_no_text_survive_json_and_csv(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff\x1b")
    write_json(tmp_path / "x.json", [name])
    assert json.loads((tmp_path / "x.json").read_text(encoding="ascii")) == [name]
    with open_text(tmp_path / "x.csv", "w") as file:
        file.write(name + "\r\n")
    assert (tmp_path / "x.csv").read_bytes() == b"\xff\x1b\r\n"
    with open_text(tmp_path / "x.csv") as file:
        assert file.read() == name + "\r\n"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_what_may_never_end_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/zero")
    for name in ("pipe", "link"):
        with pytest.raises(OSError, match="not a regular file"):
            open_regular(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "nothing")
    (tmp_path / "file").write_bytes(b"x")
    with open_regular(tmp_path / "file") as file:
        assert file.read() == b"x"


def test_names_that_are_no_text_are_escaped(tmp_path):
    write_text(tmp_path / "x", "grüß \udcff")
    assert (tmp_path / "x").read_text(encoding="utf-8") == "grüß \\udcff"
    write_json(tmp_path / "y", {"a": "\udcff"})
    assert read_json(tmp_path / "y") == {"a": "\udcff"}
