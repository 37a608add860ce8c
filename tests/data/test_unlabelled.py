from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from transfer.data.folders import read_folder
from transfer.data.left_out import LeftOut
from transfer.data.manifests.manifest import read_manifest
from transfer.data.unlabelled import add_unlabelled_domain, add_unlabelled_folder, forget_placeholder_classes
from transfer.errors import TransferError


def test_images_of_any_depth_are_a_domain_of_unknown_objects(tree, picture, tmp_path, monkeypatch):
    table = read_folder(tree("ink/cat/1.png", "ink/dog/2.png", "oil/dog/3.png"))
    for number, name in enumerate(("b.png", "more/a.png", ".hidden.png")):
        picture(tmp_path / "flat" / name, number)
    (tmp_path / "flat" / "notes.txt").touch()
    monkeypatch.chdir(tmp_path)
    lost = LeftOut("lost.png", "not found")
    known = replace(table, sha256=np.array(["a" * 64, "b" * 64, "c" * 64]), left_out=(lost,))
    both = add_unlabelled_domain(known, Path("flat"), "chalk")
    assert both.sha256 is None  # it has none of the further images
    assert [(Path(x.path).name, x.reason) for x in both.left_out] == [
        ("lost.png", "not found"),
        (".hidden.png", "hidden"),
        ("notes.txt", "not an image"),
    ]
    assert both.paths[:3].tolist() == table.paths.tolist()
    assert both.paths[3:].tolist() == [str(tmp_path / "flat" / name) for name in ("b.png", "more/a.png")]
    assert [both.domains[i] for i in both.domain] == ["ink", "ink", "oil", "chalk", "chalk"]
    assert both.objects == table.objects
    assert both.object.tolist() == [0, 1, 1, -1, -1]
    assert set(both.split[3:]) == set(both.group[3:]) == {""}
    assert both.notes == (
        "2 images of flat are the domain chalk: their labels are unknown",
        "left out: 1 file, hidden: flat/.hidden.png",
        "left out: 1 file, not an image: flat/notes.txt",
    )


def test_further_targets_are_unknown_too(picture, tmp_path):
    picture(tmp_path / "1.png")
    picture(tmp_path / "flat" / "2.png")
    (tmp_path / "list.csv").write_text("path,object,age,sex,kind\n1.png,cat,3,no,x\n")
    table = read_manifest(tmp_path / "list.csv", ["age:regression", "sex:softmax", "kind"])
    both = add_unlabelled_domain(table, tmp_path / "flat", "chalk")
    assert {name: target.known.tolist() for name, target in both.targets.items()} == {
        "object": [True, False],
        "domain": [True, True],
        "age": [True, False],
        "sex": [True, False],
        "kind": [True, False],
    }
    np.testing.assert_array_equal(both.targets["age"].values, [3, np.nan])


def test_errors(tree, tmp_path):
    table = read_folder(tree("ink/cat/1.png", "oil/dog/3.png"))
    with pytest.raises(TransferError, match="has a domain 'INK ' already"):
        add_unlabelled_domain(table, tmp_path, "INK ")
    with pytest.raises(TransferError, match=r"has a domain 'ink' already; .* --target NAME"):
        add_unlabelled_domain(table, tmp_path / "set" / "oil", "ink")
    (tmp_path / "empty").mkdir()
    with pytest.raises(TransferError, match="no image at"):
        add_unlabelled_domain(table, tmp_path / "empty", "chalk")


def test_a_folder_of_images_of_which_all_is_unknown(tree, picture, tmp_path):
    table = read_folder(tree("ink/cat/1.png", "oil/dog/3.png"))
    picture(tmp_path / "flat" / "a.png")
    assert add_unlabelled_folder(table, None) is add_unlabelled_folder(table, "rest") is table
    both = add_unlabelled_folder(table, str(tmp_path / "flat"))
    assert both.object.tolist() == [0, 1, -1]
    assert both.domain.tolist() == [0, 1, -1]
    assert both.domains == table.domains
    assert both.notes == (f"1 images of {tmp_path / 'flat'} have no label",)
    with pytest.raises(TransferError, match="--unlabelled rst: write rest, or name a folder of images"):
        add_unlabelled_folder(table, "rst")


def test_classes_that_say_that_there_is_no_label_are_none(tree):
    table = read_folder(tree("cat/1.png", "dog/2.png", "Unlabeled/3.png", "photos/4.png"))
    forgotten = forget_placeholder_classes(table)
    assert forgotten.objects == ("cat", "dog")
    assert sorted(forgotten.object.tolist()) == [-1, -1, 0, 1]
    assert forgotten.choices[-1] == "photos, Unlabeled: no class, so 2 images have no label"
    assert forget_placeholder_classes(forgotten) is forgotten
    given = [name.upper() for name in table.objects]
    assert forget_placeholder_classes(table, given) is table  # classes of a run
