import io
import os
from pathlib import Path

import pytest

from transfer.data.folders import read_folder
from transfer.data.image_paths import find_images
from transfer.data.images.file_kinds import image_suffixes
from transfer.errors import TransferError


def test_image_files_takes_files_folders_globs_and_a_list(folder):
    one = folder / "plain" / "red" / "0.png"
    assert find_images([str(one)]) == [str(one)]
    assert len(find_images([str(folder)])) == 48
    assert find_images([str(folder / "plain" / "*" / "0.png")]) == [
        str(folder / "plain" / c / "0.png") for c in ("blue", "green", "red")
    ]
    assert find_images(["-"], io.StringIO(f"{one}\n\n{folder / 'striped'}\n")) == [
        str(one),
        *find_images([str(folder / "striped")]),
    ]


def test_a_list_is_read_as_any_system_writes_it(folder, tmp_path):
    one, other = folder / "plain" / "red" / "0.png", tmp_path / '"in quotes"'
    other.write_bytes(one.read_bytes())
    text = f"\ufeff{one}\r\n\r\n\"{one}\"\r\n'{one}'\n{other}\n"
    assert find_images(["-"], io.StringIO(text, newline="")) == [str(one)] * 3 + [str(other)]


@pytest.mark.parametrize(("names", "says"), [(["nowhere"], "no image at nowhere"), ([], "no image given")])
def test_nothing_to_predict(names, says):
    with pytest.raises(TransferError, match=says):
        find_images(names)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes and links here")
def test_links_in_circles_and_depth_are_no_trouble(tmp_path):
    deep = tmp_path / "set" / Path(*"d" * 600)
    deep.mkdir(parents=True)
    (deep / "x.png").touch()
    for name in ("a", "b"):
        (tmp_path / "set" / name).symlink_to(".")
    assert find_images([str(tmp_path / "set")]) == [str(deep / "x.png")]
    (tmp_path / "set" / "c").mkdir()
    (tmp_path / "set" / "c" / "y.png").touch()
    assert str(tmp_path / "set" / "c" / "y.png") in find_images([str(tmp_path / "s*" / "c" / "**" / "*.png")])


def test_a_folder_is_read_by_the_rules_of_training(tmp_path):
    """Hidden files and folders, links, and files that are no images: what is trained on is what is predicted for."""
    for name in ("set/a/1.png", "set/a/._1.png", "set/a/notes.txt", "set/.Trash/2.png", "set/__MACOSX/a/3.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for name in ("b/4.png", "set/a/raw.NEF"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "set" / "b").symlink_to(tmp_path / "b")
    (tmp_path / "set" / "b" / "up").symlink_to(tmp_path / "set")
    (tmp_path / "set" / "b" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    trained, ignored = read_folder(tmp_path / "set"), []
    found = find_images([str(tmp_path / "set")], ignored=ignored)
    assert found == trained.paths.tolist() == [str(tmp_path / "set" / n) for n in ("a/1.png", "b/4.png", "b/gone.png")]
    assert sorted((os.path.relpath(path, tmp_path / "set"), reason) for path, reason, _ in ignored) == [
        (".Trash", "hidden"),
        ("__MACOSX", "made by an operating system"),
        ("a/._1.png", "hidden"),
        ("a/notes.txt", "not an image"),
        ("a/raw.NEF", "camera RAW: convert to JPEG or PNG"),
    ]
    assert {reason for _, reason, _ in trained.left_out} == {reason for _, reason, _ in ignored}


def test_an_empty_folder_names_only_what_it_holds_itself(tmp_path):
    for name in ("full/1.png", "full/notes.txt", "empty/data.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(TransferError, match=r"no image at .*empty: 1 file, not an image: .*data\.txt$"):
        find_images([str(tmp_path / "full"), str(tmp_path / "empty")])


def test_a_folder_of_heic_files_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr("transfer.data.images.file_kinds.has_heif", lambda: False)
    image_suffixes.cache_clear()
    (tmp_path / "IMG_1.HEIC").touch()
    try:
        with pytest.raises(TransferError, match=r"pip install 'transfer-toolkit\[heic\]': .*IMG_1\.HEIC"):
            find_images([str(tmp_path)])
    finally:
        image_suffixes.cache_clear()
