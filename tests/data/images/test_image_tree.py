import os

import pytest

from transfer.data.images.image_tree import walk_images
from transfer.errors import TransferError


@pytest.fixture
def files(tmp_path):
    """Make empty files by their names; return their root."""

    def make(*names):
        for name in names:
            (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "set" / name).touch()
        return tmp_path / "set"

    return make


def test_images_empty_folders_and_the_rest(files):
    root = files("1.png", "a/2.jpg", "a/notes.txt", "a/.3.png", "b/c/readme.md", ".git/4.png", "@eaDir/5.png")
    tree = walk_images(root)
    assert sorted(tree.images) == [((), "1.png"), (("a",), "2.jpg")]
    assert tree.empty == ["b/c"]
    assert sorted(tree.explain_ignored(root)) == [
        (".git/", "hidden", ""),
        ("@eaDir/", "made by an operating system", ""),
        ("a/.3.png", "hidden", ""),
        ("a/notes.txt", "not an image", ""),
        ("b/c/readme.md", "not an image", ""),
    ]


def test_a_folder_that_is_named_may_be_hidden_itself(files):
    root = files(".cache/1.png")
    assert walk_images(root / ".cache").images == [((), "1.png")]
    assert walk_images(root).images == []


def test_depth_can_be_limited(files):
    root = files("a/1.png", "a/b/c/2.png")
    tree = walk_images(root, max_depth=2)
    assert (tree.images, tree.empty) == ([(("a",), "1.png")], ["a/b/c (too deep)"])
    assert len(walk_images(root).images) == 2


@pytest.mark.skipif(os.name == "nt", reason="links")
class TestLinks:
    def test_they_are_followed_but_not_in_circles(self, files):
        root = files("a/1.png", "b/2.png")
        (root / "a" / "b").symlink_to(root / "b")
        (root / "b" / "a").symlink_to(root / "a")
        (root / "b" / "up").symlink_to("../..")
        assert {"/".join((*where, name)) for where, name in walk_images(root).images} == {
            *("a/1.png", "a/b/2.png", "b/2.png", "b/a/1.png")
        }

    def test_many_ways_to_one_folder_are_refused(self, files):
        root = files("a/1.png")
        for i in range(9):
            (root / f"n{i}").symlink_to(root / "a")
        with pytest.raises(TransferError, match=r"set: links lead to .*a repeatedly: remove them, or give a list"):
            walk_images(root)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads everything")
def test_a_folder_that_cannot_be_read_is_named(files):
    root = files("a/1.png")
    (root / "a").chmod(0)
    with pytest.raises(TransferError, match=r"cannot read the folder .*a: Permission denied"):
        walk_images(root)
    (root / "a").chmod(0o700)
