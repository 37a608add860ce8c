import os
from pathlib import Path

import pytest

from transfer.data.manifests.listed_files import ListedFiles
from transfer.errors import TransferError

pytestmark = pytest.mark.skipif(os.name == "nt", reason="paths of this system")


@pytest.fixture
def files(tmp_path):
    """Make empty files; return a search in their folder."""

    def make(*names):
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        return ListedFiles([tmp_path])

    return make


def test_backslashes_separate_folders(files, tmp_path):
    listed = files("cat/1.png", "odd\\name.png")
    assert listed.find("cat\\1.png") == str(tmp_path / "cat" / "1.png")
    assert listed.find(".\\cat\\1.png") == str(tmp_path / "cat" / "1.png")
    assert listed.find("odd\\name.png") == str(tmp_path / "odd\\name.png")
    assert listed.describe() == []
    with pytest.raises(TransferError, match=r"no file .*cat.2.png"):
        listed.find("cat\\2.png")


def test_a_missing_suffix_is_added_if_one_image_has_the_name(files, tmp_path):
    listed = files("cat/1.png", "cat/2.jpg", "cat/2.txt", "cat/3.png", "cat/3.jpg", "v1.5.png")
    assert listed.find("cat/1") == str(tmp_path / "cat" / "1.png")
    assert listed.find("cat\\2") == str(tmp_path / "cat" / "2.jpg")
    assert listed.find("v1.5") == str(tmp_path / "v1.5.png")
    assert listed.describe() == ["2 names without a suffix: .png added", "1 names without a suffix: .jpg added"]
    with pytest.raises(TransferError, match=r"cat/3 could be 3\.jpg, 3\.png: add the suffix"):
        listed.find("cat/3")
    with pytest.raises(TransferError, match="no file"):
        listed.find("cat/1.jpg")  # it has a suffix, another one


def test_the_home_folder(files, tmp_path, monkeypatch):
    files("dog/1.png")
    monkeypatch.setenv("HOME", str(tmp_path))
    listed = ListedFiles([Path("/nowhere")])
    assert listed.find("~/dog/1.png") == str(tmp_path / "dog" / "1.png")
    with pytest.raises(TransferError, match="no file"):
        listed.find("~/dog/2.png")


@pytest.mark.parametrize(
    ("root", "separator"),
    [
        ("/home/ann/shapes", "/"),
        ("C:\\Users\\ann\\shapes", "\\"),
        ("\\\\server\\share\\shapes", "\\"),
        ("~/shapes", "/"),
    ],
)
def test_paths_of_another_machine_lose_the_same_root(files, tmp_path, root, separator):
    listed = files("cat/1.png", "dog/2.png", "3.png", "x/4.png")
    for name in ("cat/1.png", "dog/2.png", "3.png"):
        assert listed.find(separator.join([root, *name.split("/")])) == str(tmp_path / name)
    assert listed.describe() == [f"paths of another machine: {root} is read as {tmp_path}"]
    for other in (f"{root}{separator}gone.png", separator.join([root[:-1], "x", "4.png"]), root):
        with pytest.raises(TransferError, match=r"no file|another system"):
            listed.find(other)


def test_a_file_that_is_gone_is_not_taken_from_elsewhere(files):
    listed = files("cat/1.png", "old/cat/2.png", "2.png")
    listed.find("cat/1.png")
    for path in ("cat/2.png", "dog/1.png", "/home/ann/../cat/1.png"):
        with pytest.raises(TransferError, match="no file"):
            listed.find(path)


def test_all_paths_may_start_in_one_folder_below(files, tmp_path):
    listed = files("data/images/1.png", "data/images/cat/2.png", "other/3.png")
    assert listed.find("1") == str(tmp_path / "data" / "images" / "1.png")
    assert listed.find("cat/2.png") == str(tmp_path / "data" / "images" / "cat" / "2.png")
    assert listed.describe()[-1] == f"its paths start in the folder {tmp_path / 'data' / 'images'}"
    with pytest.raises(TransferError, match="no file"):
        listed.find("3.png")
    with pytest.raises(TransferError, match=r"1\.png could be .*a/1\.png, .*b/1\.png: name its folder, too"):
        files("two/a/1.png", "two/b/1.png") and ListedFiles([tmp_path / "two"]).find("1.png")


def test_a_second_folder_is_looked_in_after_the_first(files, tmp_path):
    files("a/1.png", "b/1.png", "b/2.png")
    listed = ListedFiles([tmp_path / "a", tmp_path / "b"])
    assert [listed.find("1.png"), listed.find("2.png")] == [str(tmp_path / "a/1.png"), str(tmp_path / "b/2.png")]


@pytest.mark.parametrize("path", ["C:\\images\\1.png", "d:/images/1.png", "\\\\server\\share\\1.png"])
def test_drive_letters_are_of_another_system(tmp_path, path):
    with pytest.raises(TransferError, match=r"\(Windows\): write paths relative to the CSV file"):
        ListedFiles([tmp_path]).find(path)
