import os

import pytest

from transfer.data.csv_columns import find_listed_file, read_csv, read_header
from transfer.errors import TransferError

ROWS = [["path", "object", "note"], ["a b.png", "cat", "x, y"], ["c.png", "Bär", 'said "so"; then\tleft']]


def joined(rows, separator):
    """Join cells naively, quoting each."""
    return "\n".join(separator.join('"' + cell.replace('"', '""') + '"' for cell in row) for row in rows) + "\n"


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])  # the last two begin with a byte order mark
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_separators_and_byte_order_marks(tmp_path, separator, encoding, ending):
    file = tmp_path / "list.csv"
    file.write_bytes(joined(ROWS, separator).replace("\n", ending).encode(encoding))
    read = read_csv(file)
    assert read.cells == dict(zip(ROWS[0], map(list, zip(*ROWS[1:], strict=True)), strict=True))
    assert read.lines == [2, 3]
    assert read.renamed == {}
    assert read_header(file) == tuple(ROWS[0])


@pytest.mark.parametrize("path", ["path", "filename", "file", "image", "FileName"])
@pytest.mark.parametrize("object", ["object", "class", "label", "Class"])
def test_names_of_other_tools(tmp_path, path, object):
    file = tmp_path / "list.tsv"
    file.write_text(f"{object}\tsplit\t{path}\ncat\ttest\ta.png\n")
    read = read_csv(file)
    assert read.cells == {"object": ["cat"], "split": ["test"], "path": ["a.png"]}
    assert read.renamed == {
        ours: theirs for ours, theirs in (("path", path), ("object", object)) if theirs.lower() != ours
    }


def test_a_semicolon_in_a_comma_separated_header_is_text(tmp_path):
    file = tmp_path / "list.csv"
    file.write_text("path,object,a;b\n0.png,cat,1;2\n")
    assert read_csv(file).cells["a;b"] == ["1;2"]


def test_other_suffixes_have_no_header(tmp_path):
    (tmp_path / "list.txt").write_text("path,object\n")
    assert read_header(tmp_path / "list.txt") == ()


@pytest.mark.skipif(os.name == "nt", reason="paths of this system")
def test_backslashes_separate_folders(tmp_path):
    (tmp_path / "cat").mkdir()
    for name in ("cat/1.png", "odd\\name.png"):
        (tmp_path / name).touch()
    assert find_listed_file(tmp_path, "cat\\1.png") == str(tmp_path / "cat" / "1.png")
    assert find_listed_file(tmp_path, ".\\cat\\1.png") == str(tmp_path / "cat" / "1.png")
    assert find_listed_file(tmp_path, "odd\\name.png") == str(tmp_path / "odd\\name.png")
    with pytest.raises(TransferError, match=r"no file .*cat.2.png"):
        find_listed_file(tmp_path, "cat\\2.png")


@pytest.mark.skipif(os.name == "nt", reason="paths of another system")
@pytest.mark.parametrize("path", ["C:\\images\\1.png", "d:/images/1.png", "\\\\server\\share\\1.png"])
def test_drive_letters_are_of_another_system(tmp_path, path):
    with pytest.raises(TransferError, match=r"\(Windows\): write paths relative to the CSV file"):
        find_listed_file(tmp_path, path)
