import os

import pytest

from transfer.data.manifests.csv_columns import find_column, read_csv, read_header
from transfer.errors import TransferError

ROWS = [["path", "object", "group"], ["a b.png", "cat", "x, y"], ["c.png", "Bär", 'said "so"; then\tleft']]


def joined(rows, separator):
    """Join cells naively, quoting each."""
    return "\n".join(separator.join('"' + cell.replace('"', '""') + '"' for cell in row) for row in rows) + "\n"


@pytest.mark.parametrize("separator", [",", ";", "\t", "|", " "])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_separators_and_encodings(tmp_path, separator, encoding, ending):
    file = tmp_path / "list.csv"
    file.write_bytes(joined(ROWS, separator).replace("\n", ending).encode(encoding))
    read = read_csv(file)
    assert read.cells == dict(zip(ROWS[0], map(list, zip(*ROWS[1:], strict=True)), strict=True))
    assert read.lines == [2, 3]
    assert read.notes == (("list.csv is not UTF-8: read as Windows-1252 (Latin-1)",) if encoding == "cp1252" else ())
    assert read_header(file) == tuple(ROWS[0])


def test_bytes_of_no_encoding_are_refused(tmp_path):
    file = tmp_path / "list.csv"
    file.write_bytes(b"path,object\n0.png,\x81\x8d\n")
    with pytest.raises(TransferError, match="neither UTF-8 nor UTF-16 nor Windows-1252: save it as UTF-8"):
        read_csv(file)


def test_bytes_of_file_names_in_the_list_of_a_run_are_kept(tmp_path):
    file = tmp_path / "images.csv"
    names = [b"\xc3\xbc\xff.png", b"\xfc.png"]
    file.write_bytes(b"path,split,sha256,object\n" + b"".join(name + b",train,0,B\xc3\xa4r\n" for name in names))
    read = read_csv(file)
    assert [os.fsencode(path) for path in read.cells["path"]] == names
    assert read.cells["object"] == ["Bär", "Bär"]
    assert read.notes == ()


def test_single_quotes_spaces_and_lines_before_the_header(tmp_path):
    file = tmp_path / "list.csv"
    file.write_text("\n'path'; 'object'\n'a;1.png'; 'it''s'\n")
    assert read_csv(file).cells == {"path": ["a;1.png"], "object": ["it's"]}
    assert read_csv(file).lines == [3]
    file.write_text('sep=|\npath|object\na.png|"x|y"\n')  # the first line is for Excel
    assert read_csv(file).cells == {"path": ["a.png"], "object": ["x|y"]}
    assert read_csv(file).lines == [3]
    file.write_text("path  object\na.png  cat\n")
    assert read_csv(file).cells == {"path": ["a.png"], "object": ["cat"]}
    file.write_text("the path of each object\nis here\n")  # a sentence
    with pytest.raises(TransferError, match="no column 'path'"):
        read_csv(file)
    file.write_text('path,object\na.png,5" pipe\n')
    assert read_csv(file).cells["object"] == ['5" pipe']


PATHS = ["path", "filename", "file", "image", "FileName", "file_name", "filepath", "image_id", "Image ID", "img"]
OBJECTS = ["object", "class", "label", "Class", "category", "target", "class name"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("object", OBJECTS)
def test_names_of_other_tools(tmp_path, path, object):
    file = tmp_path / "list.tsv"
    file.write_text(f"{object}\tsplit\t{path}\ncat\ttest\ta.png\n")
    read = read_csv(file)
    assert read.cells == {"object": ["cat"], "split": ["test"], "path": ["a.png"]}
    assert read.notes == tuple(
        f"list.tsv: column {theirs!r} is the {ours}"
        for ours, theirs in (("path", path), ("object", object))
        if theirs.lower() != ours
    )


def test_the_likelier_of_two_names_counts_and_equal_ones_are_refused(tmp_path):
    assert find_column(["target", "Label", "category"], "object") == [1]
    assert find_column(["image_id", "file_name"], "path") == [1]
    assert find_column(["width", "score"], "path") == []
    file = tmp_path / "list.csv"
    file.write_text("path,target,category\na.png,1,x\n")
    with pytest.raises(TransferError, match=r"'target' and 'category', either of which could be the object: rename"):
        read_csv(file)


def test_a_semicolon_in_a_comma_separated_header_is_text(tmp_path):
    file = tmp_path / "list.csv"
    file.write_text("path,object,a;b\n0.png,cat,1;2\n")
    assert read_csv(file).cells["a;b"] == ["1;2"]


def test_other_suffixes_have_no_header(tmp_path):
    (tmp_path / "list.xml").write_text("path,object\n")
    assert read_header(tmp_path / "list.xml") == ()
