from pathlib import Path

import pytest

from transfer.data.manifests.label_tables import (
    find_inner_tables,
    find_label_tables,
    find_wrapped_folder,
    locate_labels,
)
from transfer.errors import TransferError


@pytest.fixture
def root(tree):
    return tree("cam1/1.png", "cam1/2.png", "cam2/1.png")


ROWS = "cam1/1.png,cat\ncam2/1.png,dog\n"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("labels.csv", "path,object\n" + ROWS),
        ("labels.csv", "path;object\n" + ROWS.replace(",", ";")),
        ("LABELS.TSV", "file name\tcategory\n" + ROWS.replace(",", "\t")),
        ("labels.txt", "image_id target\n" + ROWS.replace(",", " ").replace(".png", "")),
        ("labels.csv", "image,label\ncam1/gone.png,cat\n" + ROWS),  # reading it names the line
    ],
)
def test_a_table_whose_images_exist_is_taken(root, name, text):
    (root / name).write_text(text)
    assert find_label_tables(root) == ({root / name: ""}, [])


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("a.csv", "name,score\nx,1\n", "no column is the path or the object"),
        ("a.csv", "file,score\nx,1\n", "no column is the object"),
        ("a.tsv", "kind\tlabel\nx\t1\n", "no column is the path"),
        ("a.csv", ROWS, "its first line is no header: write path,object above it"),
        ("a.csv", "file,label\nx.png,cat\n", "no file"),
        ("a.csv", "file,class,label\ncam1/1.png,cat,1\n", "rename one"),
        ("a.csv", "file,label\ncam1/1.png,cat,1\n", "line 2: 3 cells"),
        ("a.xlsx", "PK", "tables of this format are not read, save it as CSV"),
        ("a.parquet", "PAR1", "tables of this format are not read, save it as CSV"),
    ],
)
def test_a_table_that_is_not_read_has_a_reason(root, name, text, fault):
    (root / name).write_text(text)
    found, unread = find_label_tables(root)
    assert found == {}
    assert [file for file, _ in unread] == [name]
    assert fault in unread[0][1]


def test_plain_text_is_no_table(root):
    (root / "notes.txt").write_text("the path to each object\n")
    (root / "readme.txt").write_text("path")
    (root / ".labels.csv").write_text("path,object\n" + ROWS)
    assert find_label_tables(root) == ({}, [])


def test_a_column_path_has_precedence_and_two_tables_are_a_question(root):
    (root / "list.csv").write_text("path,object\n" + ROWS)
    (root / "other.csv").write_text("file,label\n" + ROWS)
    assert find_label_tables(root) == ({root / "list.csv": ""}, [("other.csv", "list.csv is")])
    (root / "list.csv").unlink()
    (root / "more.csv").write_text("file,label\n" + ROWS)
    with pytest.raises(TransferError, match=r"2 CSV manifests \(more.csv, other.csv\): choose one, such as --labels m"):
        find_label_tables(root)


def test_tables_in_inner_folders_are_named(root):
    for name in ("meta/labels.csv", "meta/scores.csv", "notes.csv"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text("score\n1\n" if "scores" in name else "path,object\n" + ROWS)
    names = ["meta/labels.csv", "meta/scores.csv", "notes.csv"]
    reason = "it is not in the top folder, --labels meta/labels.csv reads it"
    assert find_inner_tables(root, names) == [("meta/labels.csv", reason)]


def test_labels_are_relative_to_here_or_to_the_images(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (root / "labels.csv").write_text("path,object\n")
    assert locate_labels(root, "labels.csv") == root / "labels.csv"
    (tmp_path / "labels.csv").write_text("path,object\n")
    assert locate_labels(root, "labels.csv") == tmp_path / "labels.csv"
    assert locate_labels(Path("/nowhere"), str(root / "labels.csv")) == root / "labels.csv"
    with pytest.raises(TransferError, match=r"--labels: no file label\.csv \(did you mean 'labels\.csv'\?\)"):
        locate_labels(root, "label.csv")
    with pytest.raises(TransferError, match=r"no file folder \(did you mean 'folders'\?\)"):
        locate_labels(root, "folder")


@pytest.mark.parametrize("names", [("train.csv", "test.csv"), ("Training.csv", "dev.csv", "Test_labels.tsv")])
def test_tables_that_are_called_as_splits_are_taken_together(root, names):
    splits = ["train", "val", "test"] if len(names) > 2 else ["train", "test"]
    for name in names:
        (root / name).write_text("path,object\n" + ROWS)
    assert find_label_tables(root) == ({root / n: s for n, s in sorted(zip(names, splits, strict=True))}, [])
    (root / "more.csv").write_text("path,object\n" + ROWS)
    with pytest.raises(TransferError, match=r"CSV manifests .*more\.csv.*: choose one"):
        find_label_tables(root)


def test_one_folder_around_all(root, tmp_path, picture):
    assert find_wrapped_folder(root) is None
    for name in (".hidden", "__MACOSX"):
        (tmp_path / name).mkdir()
    (tmp_path / "readme.md").touch()
    assert find_wrapped_folder(tmp_path) == root
    (tmp_path / "scores.csv").touch()
    assert find_wrapped_folder(tmp_path) is None
    (tmp_path / "scores.csv").unlink()
    picture(tmp_path / "1.png")
    assert find_wrapped_folder(tmp_path) is None
