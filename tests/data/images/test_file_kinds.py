import os
from pathlib import Path

import pytest

from transfer.data.images.file_kinds import (
    AVIF,
    HIDDEN,
    NOT_AN_IMAGE,
    OTHER_FORMAT,
    RAW,
    SYSTEM,
    VIDEO,
    describe_left_out,
    explain_unread,
    image_suffixes,
    is_image,
    is_lost_image,
    is_passed_over,
)
from transfer.data.left_out import LeftOut


def test_is_image():
    assert all(is_image(Path(name)) for name in ("a.JPEG", "b/a.webp", "a.tif"))
    assert not any(is_image(Path(name)) for name in ("a.h5", "b/.a.png", "a.txt", "png"))
    assert is_image("b/a.PNG")
    assert not any(map(is_image, ("b/.a.png", ".png", "a.png.", "png", "a.png/b")))


def test_postscript_is_no_image():
    assert not is_image(Path("x.eps"))
    assert not is_image(Path("x.ps"))


@pytest.mark.parametrize(
    ("name", "reason", "lost"),
    [
        (".a.png", HIDDEN, False),
        ("._a.heic", HIDDEN, False),
        ("a.avif", AVIF, True),
        ("A.CR2", RAW, True),
        ("a.dng", RAW, True),
        ("a.MP4", VIDEO, False),
        ("a.mkv", VIDEO, False),
        ("a.svg", OTHER_FORMAT, True),
        ("a.jxl", OTHER_FORMAT, True),
        ("a.txt", NOT_AN_IMAGE, False),
        ("a.json", NOT_AN_IMAGE, False),
        ("a.png.gz", NOT_AN_IMAGE, False),
        ("README", NOT_AN_IMAGE, False),
        ("gone.bak", NOT_AN_IMAGE, False),
    ],
)
def test_reasons(tmp_path, name, reason, lost):
    if name != "gone.bak":
        (tmp_path / name).write_text("some text")
    assert explain_unread(tmp_path / name) == reason
    assert is_lost_image(reason) == lost


def test_heic_needs_a_package():
    reason = explain_unread(Path("a.HEIC"))
    assert "pip install 'transfer-toolkit[heic]'" in reason
    assert is_lost_image(reason)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".gif", ".webp", ".tif"])
@pytest.mark.parametrize("name", ["a.jpg_large", "photo", "a.png~", "a.bak"])
def test_images_with_a_bad_suffix_are_recognised(tmp_path, picture, suffix, name):
    file = picture(tmp_path / f"x{suffix}").rename(tmp_path / name)
    reason = explain_unread(file)
    assert reason == f"an image by its content, not by its name: let that end in {suffix}"
    assert is_lost_image(reason)
    assert explain_unread(file, opened=False) == NOT_AN_IMAGE


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert explain_unread(tmp_path / "pipe") == NOT_AN_IMAGE


def test_files_are_counted_by_reason():
    files = [*(LeftOut(f"{n}.txt", NOT_AN_IMAGE) for n in "abcd"), LeftOut(".x", HIDDEN, "s.tar")]
    assert describe_left_out(files) == ["4 files, not an image: a.txt, b.txt, c.txt, …", "1 file, hidden: .x (s.tar)"]
    assert describe_left_out([]) == []


def test_heic_is_an_image_where_its_package_is_installed(monkeypatch):
    try:
        for installed in (True, False):
            monkeypatch.setattr("transfer.data.images.file_kinds.has_heif", lambda installed=installed: installed)
            image_suffixes.cache_clear()
            assert is_image(Path("a.heic")) == installed
    finally:
        image_suffixes.cache_clear()


def test_folders_are_counted_apart_from_files():
    left_out = [LeftOut(name, HIDDEN) for name in (".git/", ".1.png", "a/.Trash/")]
    assert describe_left_out(left_out) == ["2 folders, hidden: .git/, a/.Trash/", "1 file, hidden: .1.png"]
    assert explain_unread(Path("a/__MACOSX/")) == SYSTEM
    assert not is_lost_image(SYSTEM)
    assert [is_passed_over(name) for name in (".git", "@eaDir", "cat")] == [True, True, False]
