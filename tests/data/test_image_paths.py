import io
import os
from pathlib import Path

import pytest

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
def test_links_in_circles_pipes_and_depth_are_no_trouble(tmp_path):
    deep = tmp_path / "set" / Path(*"d" * 600)
    deep.mkdir(parents=True)
    (deep / "x.png").touch()
    for name in ("a", "b"):
        (tmp_path / "set" / name).symlink_to(".")
    os.mkfifo(tmp_path / "set" / "pipe.png")
    assert find_images([str(tmp_path / "set")]) == [str(deep / "x.png")]
    (tmp_path / "set" / "c").mkdir()
    (tmp_path / "set" / "c" / "y.png").touch()
    assert str(tmp_path / "set" / "c" / "y.png") in find_images([str(tmp_path / "s*" / "c" / "**" / "*.png")])


def test_hidden_files_and_those_that_are_no_images_are_ignored(tmp_path):
    for name in ("a.png", "notes.txt", "._a.png", "in/b.jpg", ".thumbnails/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    ignored = []
    found = find_images([str(tmp_path)], ignored=ignored)
    assert found == [str(tmp_path / "a.png"), str(tmp_path / "in" / "b.jpg")]
    assert sorted(ignored) == [
        (str(tmp_path / "._a.png"), "hidden", ""),
        (str(tmp_path / "notes.txt"), "not an image", ""),
    ]


def test_a_folder_of_heic_files_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr("transfer.data.images.file_kinds.has_heif", lambda: False)
    image_suffixes.cache_clear()
    (tmp_path / "IMG_1.HEIC").touch()
    try:
        with pytest.raises(TransferError, match=r"pip install 'transfer-toolkit\[heic\]': .*IMG_1\.HEIC"):
            find_images([str(tmp_path)])
    finally:
        image_suffixes.cache_clear()
