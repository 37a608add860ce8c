import os
import subprocess
import sys
from pathlib import Path

import pytest

from transfer.data.folders import read_folder
from transfer.data.images.file_kinds import image_suffixes
from transfer.errors import TransferError

SHARED = Path(__file__).parents[3] / "shared"


def rows(table):
    """Return (relative path, object, domain, split) of every row."""
    names = [
        (table.objects[o], table.domains[d], s) for o, d, s in zip(table.object, table.domain, table.split, strict=True)
    ]
    return list(zip([Path(p).name for p in table.paths], names, strict=True))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["cat/1.png", "dog/2.JPG"], [("cat", "all", ""), ("dog", "all", "")]),
        (["images/cat/1.png", "images/dog/2.png"], [("cat", "all", ""), ("dog", "all", "")]),
        (["ink/cat/1.png", "oil/cat/2.png"], [("cat", "ink", ""), ("cat", "oil", "")]),
        (["ink/images/cat/1.png", "oil/dog/2.png"], [("cat", "ink", ""), ("dog", "oil", "")]),
        (["train/cat/1.png", "Test/cat/2.png"], [("cat", "all", "test"), ("cat", "all", "train")]),
        (["valid/cat/1.png", "validation/cat/2.png"], [("cat", "all", "val")] * 2),
        (
            ["train/ink/images/cat/1.png", "val/oil/cat/2.png"],
            [("cat", "ink", "train"), ("cat", "oil", "val")],
        ),
        (["train/1.png", "car/2.png"], [("car", "all", ""), ("train", "all", "")]),
        (["images/cat/1.png", "sketches/cat/2.png"], [("cat", "images", ""), ("cat", "sketches", "")]),
        (["Ärger im Büro/1.png", "two words/2.png"], [("two words", "all", ""), ("Ärger im Büro", "all", "")]),
    ],
)
def test_every_layout(tree, names, expected):
    table = read_folder(tree(*names))
    assert sorted(n for _, n in rows(table)) == sorted(expected)
    assert all(os.path.isabs(p) and Path(p).is_file() for p in table.paths)
    assert all("class beside" in note for note in table.notes)


def test_each_path_has_its_own_labels(tree):
    table = read_folder(tree("oil/dog/4.png", "ink/cat/1.png", "ink/dog/2.png", "oil/cat/3.png"))
    assert rows(table) == [
        ("1.png", ("cat", "ink", "")),
        ("2.png", ("dog", "ink", "")),
        ("3.png", ("cat", "oil", "")),
        ("4.png", ("dog", "oil", "")),
    ]


def test_classes_are_in_natural_order(tree):
    assert read_folder(tree("10/a.png", "9/a.png", "1/a.png")).objects == ("1", "9", "10")


def test_what_is_no_image_is_ignored_and_counted(tree):
    root = tree("cat/1.png", "dog/2.png")
    for name in ("cat/notes.txt", "cat/.hidden.png", ".DS_Store"):
        (root / name).touch()
    (root / "empty class").mkdir()
    (root / ".git/cat").mkdir(parents=True)
    table = read_folder(root)
    assert len(table) == 2
    assert table.objects == ("cat", "dog")
    assert "1 folder without an image skipped: empty class" in table.notes
    assert "left out: 1 file, not an image: cat/notes.txt" in table.notes
    assert "left out: 2 files, hidden: .DS_Store, cat/.hidden.png" in table.notes
    assert "left out: 1 folder, hidden: .git/" in table.notes
    assert len(table.left_out) == 4


def test_a_link_that_leads_back_up_is_left(tree):
    root = tree("cat/1.png", "dog/2.png")
    (root / "cat" / "loop").symlink_to(root, target_is_directory=True)
    assert len(read_folder(root)) == 2


def test_a_linked_class_is_read(tree, tmp_path, picture):
    root = tree("cat/1.png")
    picture(tmp_path / "elsewhere" / "2.png")
    (root / "dog").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert read_folder(root).objects == ("cat", "dog")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["cat/1.png", "ink/dog/2.png"], "mixed depths ('cat/1.png' and 'ink/dog/2.png')"),
        (["1.png"], "outside any class folder ('1.png')"),
        (["train/1.png", "test/2.png"], "outside any class folder"),
        (["a/b/c/1.png", "d/b/c/1.png"], "3 levels deep ('a/b/c/1.png')"),
        (["a/b/c/d/e/f/1.png", "g/b/c/d/e/f/1.png"], "6 levels deep"),
        (["train/cat/1.png", "extra/cat/2.png"], "splits (train) beside extra"),
        (["cat/notes.txt.not"], "no image in"),
    ],
)
def test_what_cannot_be_read_is_one_clear_line(tree, tmp_path, names, words):
    root = tmp_path / "set"
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    with pytest.raises(TransferError) as error:
        read_folder(root)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_no_such_folder_and_no_folder(tmp_path):
    with pytest.raises(TransferError, match="does not exist"):
        read_folder(tmp_path / "none")
    (tmp_path / "a.xml").touch()
    with pytest.raises(TransferError, match="is not a folder or a CSV manifest"):
        read_folder(tmp_path / "a.xml")


def test_a_manifest_in_the_folder_is_read_and_other_csvs_are_not(tree):
    root = tree("x/1.png", "x/2.png")
    (root / "scores.csv").write_text("name,score\nx,1\n")
    assert read_folder(root).objects == ("x",)
    (root / "list.csv").write_text("path,object\nx/1.png,cat\n")
    assert read_folder(root).objects == ("cat",)
    assert read_folder(root / "list.csv").objects == ("cat",)
    (root / "more.csv").write_text("path,object\nx/1.png,cat\n")
    with pytest.raises(TransferError, match=r"2 CSV manifests \(list.csv, more.csv\)"):
        read_folder(root)


def test_targets_need_a_manifest(tree):
    with pytest.raises(TransferError, match=r"\(age\) need a CSV manifest"):
        read_folder(tree("cat/1.png"), ["age"])


def test_torch_is_not_imported():
    code = "import sys, transfer.data.folders; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("name", "images", "objects", "domains"),
    [
        ("office31", 4110, 31, ("amazon", "dslr", "webcam")),
        ("flowers12", 960, 12, ("all",)),
        ("neu_cls", 1800, 6, ("all",)),
    ],
)
def test_real_sets(name, images, objects, domains):
    folder = SHARED / "data" / name
    if not folder.is_dir():
        pytest.skip(f"{folder} is not here")
    table = read_folder(folder)
    assert (len(table), len(table.objects), table.domains) == (images, objects, domains)
    assert len(set(table.paths)) == images
    assert (table.object >= 0).all()
    if name == "flowers12":
        assert [(table.split == s).sum() for s in ("train", "val", "test")] == [720, 0, 240]


@pytest.mark.skipif(os.name == "nt", reason="pipes and links")
class TestHostile:
    def test_a_pipe_called_csv_is_not_waited_for(self, tree):
        """Found by fuzzing."""
        root = tree("a/1.png", "b/1.png")
        os.mkfifo(root / "x.csv")
        assert len(read_folder(root)) == 2
        with pytest.raises(TransferError, match="is not a folder or a CSV manifest"):
            read_folder(root / "x.csv")

    def test_links_to_themselves_and_up_to_the_root_are_not_followed(self, tree):
        root = tree("a/1.png", "b/1.png")
        (root / "self").symlink_to(root / "self")
        (root / "a" / "2.png").symlink_to(root / "a" / "2.png")
        (root / "disk").symlink_to("/")
        (root / "b" / "up").symlink_to("../..")
        assert [Path(path).name for path in read_folder(root).paths] == ["1.png", "2.png", "1.png"]

    def test_folders_that_link_to_each_other_are_refused_at_once(self, tree):
        root = tree("a/1.png")
        for i in range(30):
            (root / f"n{i}").mkdir()
            for j in range(30):
                (root / f"n{i}" / f"n{j}").symlink_to(root / f"n{j}")
        with pytest.raises(TransferError, match="repeatedly"):
            read_folder(root)


def test_a_csv_of_another_tool_is_read_if_its_first_image_exists(tree):
    root = tree("images/1.png", "images/2.png")
    (root / "labels.csv").write_text("filename;label\nimages\\1.png;cat\nimages\\2.png;dog\n")
    table = read_folder(root)
    assert (table.objects, [Path(path).name for path in table.paths]) == (("cat", "dog"), ["1.png", "2.png"])
    assert len(table.notes) == 2  # one for each name of a column; the one folder is no set of classes


def test_class_folders_have_precedence_over_a_csv_without_its_images(tree):
    root = tree("cat/1.png", "dog/2.png")
    (root / "labels.csv").write_text("filename,label\n1.png,x\n2.png,y\n")
    table = read_folder(root)
    assert table.objects == ("cat", "dog")
    assert "labels.csv is not read as a manifest: no file" in " ".join(table.notes)


def test_a_flat_folder_says_why_its_csv_is_not_read(tree):
    root = tree("1.png", "2.png")
    (root / "labels.csv").write_text("image,class,label\n1.png,x,y\n")
    with pytest.raises(TransferError, match=r"outside any class folder.*labels\.csv is not read.*rename one"):
        read_folder(root)


def test_heic_files_are_read_or_named_with_what_to_install(tree, monkeypatch):
    root = tree("cat/1.png", "dog/2.png")
    (root / "cat" / "3.heic").touch()
    try:
        for installed in (True, False):
            monkeypatch.setattr("transfer.data.images.file_kinds.has_heif", lambda installed=installed: installed)
            image_suffixes.cache_clear()
            table = read_folder(root)
            assert len(table) == 2 + installed
            note = (
                "left out: 1 file, HEIC images need another package: pip install 'transfer-toolkit[heic]': cat/3.heic"
            )
            assert [note in text for text in table.notes] == [True] * (not installed)
        (root / "cat" / "1.png").unlink()
        (root / "dog" / "2.png").unlink()
        with pytest.raises(TransferError, match=r"no image in .*1 file, HEIC images need another package.*3\.heic"):
            read_folder(root)
    finally:
        image_suffixes.cache_clear()


@pytest.fixture
def cameras(tree):
    """Write a folder for each camera; the classes are in no folder."""
    return tree(*(f"cam{i}/{n}.png" for i in (1, 2) for n in range(3)))


ROWS = "".join(f"cam{i}/{n}.png,{'Kreis' if n else 'Bär'}\n" for i in (1, 2) for n in range(3))


@pytest.mark.parametrize(
    ("header", "rows", "encoding"),
    [
        ("path,object", ROWS, "utf-8-sig"),
        ("path;object", ROWS.replace(",", ";"), "latin-1"),
        ("path\tobject", ROWS.replace(",", "\t"), "utf-16"),
        ("image_id,category", ROWS.replace(".png", ""), "utf-8"),
        ("filepath,target", ROWS.replace("cam", "C:\\Users\\ann\\cam").replace("/", "\\"), "utf-8"),
        ("file,label", ROWS.replace("cam", "/home/ann/cam"), "utf-8"),
    ],
)
def test_a_table_beside_folders_that_could_be_classes_is_read_and_said(cameras, header, rows, encoding):
    (cameras / "labels.csv").write_bytes(f"{header}\n{rows}".encode(encoding))
    table = read_folder(cameras)
    assert table.objects == ("Bär", "Kreis")
    line = "labels.csv names the labels, not the folders cam1, cam2 (--labels folders reads these)"
    assert table.choices[-1] == line
    assert set(table.choices) <= set(table.notes)
    folders = read_folder(cameras, labels="folders")
    assert (folders.objects, folders.choices) == (("cam1", "cam2"), ())
    assert folders.left_out == (("labels.csv", "not an image", ""),)


@pytest.mark.parametrize("text", ["picture,kind\n", "", "path_,object_\n", "file,label\n"])
def test_a_table_that_is_not_read_is_said_beside_the_folders(cameras, text):
    (cameras / "labels.csv").write_text(text)
    table = read_folder(cameras)
    assert table.objects == ("cam1", "cam2")
    (line,) = table.choices
    assert line.startswith("labels.csv is not read as a manifest: ")
    assert line.endswith("; the folders name the classes (--labels FILE decides)")
    assert [file.path for file in table.left_out] == ["labels.csv"]


def test_labels_name_the_table(cameras, tmp_path):
    (cameras / "labels.csv").write_text("path,object\n" + ROWS, encoding="utf-8")
    (cameras / "meta").mkdir()
    (cameras / "meta" / "old.csv").write_text("path,object\n../cam1/0.png,x\ncam2/0.png,y\n")
    (tmp_path / "elsewhere.csv").write_text("path,object\ncam1/0.png,v\ncam2/0.png,w\n")
    assert read_folder(cameras).objects == ("Bär", "Kreis")
    assert read_folder(cameras, labels="meta/old.csv").objects == ("x", "y")
    table = read_folder(cameras, labels=str(tmp_path / "elsewhere.csv"))
    assert table.objects == ("v", "w")
    assert table.choices == ()  # nothing is chosen for the user
    assert {file.reason for file in table.left_out} == {"not in elsewhere.csv"}
    assert len(table.left_out) == 4
    with pytest.raises(TransferError, match=r"--labels: elsewhere\.csv is a table itself"):
        read_folder(tmp_path / "elsewhere.csv", labels="folders")


def test_a_table_in_an_inner_folder_is_not_passed_over(cameras):
    (cameras / "meta").mkdir()
    (cameras / "meta" / "labels.csv").write_text("path,object\n../cam1/0.png,x\n")
    table = read_folder(cameras)
    assert table.objects == ("cam1", "cam2")
    assert "meta/labels.csv is not read as a manifest: it is not in the top folder, --labels" in table.choices[0]


def test_a_table_with_a_missing_image_is_refused_with_the_way_out(cameras):
    (cameras / "labels.csv").write_text("file,label\ncam1/gone.png,x\ncam1/0.png,y\ncam1/1.png,y\n")
    with pytest.raises(TransferError, match=r"labels.csv line 2: no file .*gone.png .*; --labels folders"):
        read_folder(cameras)


def test_images_and_tables_that_the_manifest_does_not_name_are_named(cameras):
    (cameras / "list.csv").write_text("path,object\n./cam1/0.png,x\ncam2/0.png,y\n")
    (cameras / "scores.csv").write_text("name,score\n")
    (cameras / "cam1" / "9.nef").touch()
    table = read_folder(cameras)
    assert len(table) == 2
    assert "scores.csv is not read as a manifest: no column is the path or the object" in table.choices
    reasons = {file.path: file.reason for file in table.left_out}
    assert {name for name, reason in reasons.items() if reason == "not in list.csv"} == {
        f"cam{i}/{n}.png" for i in (1, 2) for n in (1, 2)
    }
    assert reasons["cam1/9.nef"].startswith("camera RAW")


@pytest.mark.parametrize("suffix", [".cr2", ".svg", ".png_large"])
@pytest.mark.parametrize("layout", ["{}", "ink/{}", "train/{}", "train/ink/{}"])
def test_a_class_that_loses_all_its_images_is_an_error(tree, suffix, layout):
    root = tree(*(f"{layout.format(name)}/{n}.png" for name in ("cat", "dog") for n in (1, 2)))
    lost = root / layout.format("owl")
    lost.mkdir()
    for n in (1, 2):
        (lost / f"{n}{suffix}").write_bytes((root / layout.format("cat") / "1.png").read_bytes())
    with pytest.raises(TransferError, match=rf"no image of the folder {layout.format('owl')} can be read \(2 files, "):
        read_folder(root)
    (lost / "1.png").write_bytes((root / layout.format("cat") / "1.png").read_bytes())
    table = read_folder(root)
    assert len(table.left_out) == 2
    assert f"{layout.format('owl')}/1{suffix}" in {file.path: file.reason for file in table.left_out}


def test_files_that_are_no_images_lose_no_class(tree):
    root = tree("cat/1.png", "dog/2.png")
    for name in ("cat/originals/1.nef", "docs/notes.txt", "clips/1.mp4", "__MACOSX/cat/._1.png", "logo.svg"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    table = read_folder(root)
    assert table.objects == ("cat", "dog")
    assert len(table.left_out) == 5


def test_tables_of_splits_are_read_together(cameras):
    lines = ROWS.splitlines()
    (cameras / "train.csv").write_text("\n".join(["path,object", *lines[:4]]), encoding="utf-8")
    (cameras / "test.csv").write_text("\n".join(["path,object", *lines[4:]]), encoding="utf-8")
    table = read_folder(cameras)
    assert sorted(table.split.tolist()) == ["test"] * 2 + ["train"] * 4
    assert "train.csv lists the train images" in table.choices
    line = "test.csv, train.csv name the labels, not the folders cam1, cam2 (--labels folders reads these)"
    assert table.choices[-1] == line
    assert read_folder(cameras, labels="train.csv").split.tolist() == [""] * 4


def test_a_table_in_the_one_folder_around_all(cameras):
    (cameras / "labels.csv").write_text("path,object\n" + ROWS, encoding="utf-8")
    assert read_folder(cameras.parent).objects == ("Bär", "Kreis")
    (cameras / "labels.csv").write_text("name,score\n")
    table = read_folder(cameras.parent)
    assert table.objects == ("cam1", "cam2")
    assert table.choices[0].startswith("set/labels.csv is not read as a manifest: no column is the path")
