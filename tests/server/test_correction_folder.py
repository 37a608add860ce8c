import hashlib
import multiprocessing
import shutil

import pytest
from upload_files import encode

from transfer.config.commands import UpdateConfig
from transfer.errors import TransferError
from transfer.runs.image_list import read_image_list
from transfer.server import correction_folder
from transfer.server.correction_folder import CorrectionFolder, clean_label
from transfer.updating.update import update


@pytest.fixture
def corrections(tmp_path):
    return CorrectionFolder(tmp_path / "run")


def test_nothing_is_written_before_the_first_correction(corrections, tmp_path):
    assert corrections.list_corrections() == []
    assert not list(tmp_path.iterdir())


def test_a_correction_has_image_label_and_time(corrections):
    content = encode("red")
    digest = hashlib.sha256(content).hexdigest()
    assert corrections.add(content, ".png", "coffee mug", "cup", seen=0)
    (found,) = corrections.list_corrections()
    assert (found["id"], found["label"], found["predicted"], found["seen"]) == (digest, "coffee mug", "cup", 1)
    assert found["when"].endswith("+00:00")
    assert corrections.read_image(digest) == content
    assert sorted(file.name for file in (corrections.path / "images").iterdir()) == [f"{digest}.png"]


def test_the_newest_comes_first_and_lines_are_only_appended(corrections):
    before = b""
    for place, colour in enumerate(("red", "green", "blue", "red")):
        corrections.add(encode(colour), ".png", f"label {place}")
        now = corrections.file.path.read_bytes()
        assert now.startswith(before)
        before = now
    assert [each["label"] for each in corrections.list_corrections()] == ["label 3", "label 2", "label 1"]


def test_undo_takes_back_one_decision_after_the_other(corrections):
    content = encode("red")
    digest = hashlib.sha256(content).hexdigest()
    corrections.add(content, ".png", "first")
    corrections.add(content, ".png", "second")
    assert corrections.undo(digest)
    assert [each["label"] for each in corrections.list_corrections()] == ["first"]
    assert corrections.read_image(digest) == content
    assert corrections.undo(digest)
    assert corrections.list_corrections() == []
    assert corrections.read_image(digest) is None
    assert not list((corrections.path / "images").iterdir())
    with pytest.raises(TransferError, match="no correction"):
        corrections.undo(digest)
    assert corrections.add(content, ".png", "third", seen=4)
    assert corrections.read_image(digest) == content


def test_a_tab_that_is_behind_changes_nothing(corrections):
    content = encode("red")
    digest = hashlib.sha256(content).hexdigest()
    corrections.add(content, ".png", "first", seen=0)
    before = corrections.file.path.read_bytes()
    assert not corrections.add(content, ".png", "second", seen=0)
    assert not corrections.undo(digest, seen=2)
    assert corrections.file.path.read_bytes() == before


def _add(folder, colour, seed):
    CorrectionFolder(folder).add(encode(colour, seed=seed), ".png", colour)


def test_several_processes_lose_nothing(tmp_path):
    context = multiprocessing.get_context("spawn")
    started = [context.Process(target=_add, args=(tmp_path, "red", seed)) for seed in range(2)]
    for process in started:
        process.start()
    for process in started:
        process.join(120)
    assert len(CorrectionFolder(tmp_path).list_corrections()) == 2


def test_an_image_that_is_not_written_whole_leaves_no_line(corrections, monkeypatch):
    monkeypatch.setattr(correction_folder, "atomic_write", lambda path: (_ for _ in ()).throw(TransferError("full")))
    with pytest.raises(TransferError, match="full"):
        corrections.add(encode(), ".png", "mug")
    assert corrections.list_corrections() == []


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "corrections").write_text("a file")
    with pytest.raises(TransferError, match="cannot write"):
        CorrectionFolder(tmp_path).add(encode(), ".png", "mug")


@pytest.mark.parametrize("label", ["", "  \n", "x" * 201, "a\x00b", "a\x1bb"])
def test_labels_that_are_no_names_are_refused(label):
    with pytest.raises(TransferError):
        clean_label(label)


@pytest.mark.parametrize("label", ["a\nb", "b\udcff", "two  spaces"])
def test_a_class_of_the_run_is_stored_as_it_is(corrections, label):
    corrections.add(encode(), ".png", label, label, classes=("mug", label))
    assert [(each["label"], each["predicted"]) for each in corrections.list_corrections()] == [(label, label)]


@pytest.mark.parametrize("label", ["../../x", "=cmd()", "<img src=x>", 'a,"b"', "mug\u202egum", "Größe 日本"])
def test_hostile_labels_are_stored_as_they_are(corrections, label):
    corrections.add(encode(), ".png", label)
    assert [each["label"] for each in corrections.list_corrections()] == [label]
    assert {file.name for file in corrections.path.iterdir()} >= {"images", "labels.csv"}


def test_a_run_that_moved_shows_its_images(corrections, tmp_path):
    corrections.add(encode(), ".png", "mug")
    shutil.move(tmp_path / "run", tmp_path / "moved")
    moved = CorrectionFolder(tmp_path / "moved")
    assert moved.read_image(moved.list_corrections()[0]["id"]) == encode()


def test_update_takes_corrections_new_classes_included_and_leaves_undone_ones(run_folder, tmp_path):
    folder = CorrectionFolder(run_folder)
    known = read_image_list(run_folder)[0]
    with open(known["path"], "rb") as file:
        folder.add(file.read(), ".png", "teal", known["object"])
    for seed in range(3):
        folder.add(encode("green", seed=seed, size=(48, 48)), ".png", "teal", "green")
    undone = encode("red", seed=9, size=(48, 48))
    folder.add(undone, ".png", "wrong", "red")
    folder.undo(hashlib.sha256(undone).hexdigest())
    out = tmp_path / "updated"
    update(UpdateConfig(run_folder, corrections=folder.file.path, out=out, device="cpu"))
    labels = {image["sha256"]: image["object"] for image in read_image_list(out)}
    assert labels[known["sha256"]] == "teal"
    assert sum(label == "teal" for label in labels.values()) == 4
    assert "wrong" not in labels.values()


def test_update_finds_the_images_of_a_run_that_moved(run_folder, tmp_path):
    for seed in range(3):
        CorrectionFolder(run_folder).add(encode("green", seed=seed, size=(48, 48)), ".png", "teal", "green")
    shutil.move(run_folder, tmp_path / "moved")
    moved = CorrectionFolder(tmp_path / "moved")
    out = tmp_path / "updated"
    update(UpdateConfig(tmp_path / "moved", corrections=moved.file.path, out=out, device="cpu"))
    found = [image["path"] for image in read_image_list(out) if image["object"] == "teal"]
    assert len(found) == 3
    assert all(path.startswith(str(moved.path)) for path in found)


def test_a_domain_is_stored_where_it_is_stated(corrections):
    corrections.add(encode("red"), ".png", "mug", "cup")
    corrections.add(encode("green"), ".png", "mug", "cup", domain="  the  attic ")
    assert [(each["label"], each["domain"]) for each in corrections.list_corrections()] == [
        ("mug", "the attic"),
        ("mug", ""),
    ]
    with pytest.raises(TransferError, match="the name of the domain has control characters"):
        corrections.add(encode("blue"), ".png", "mug", domain="a\x00b")


def test_update_takes_stated_domains_and_leaves_others_unknown(run_folder, tmp_path):
    folder, known = CorrectionFolder(run_folder), read_image_list(run_folder)[0]
    with open(known["path"], "rb") as file:
        folder.add(file.read(), ".png", known["object"], domain="Striped")  # spelled otherwise than in the run
    for seed, domain in enumerate(("plain", "attic", "")):
        folder.add(encode("green", seed=seed, size=(48, 48)), ".png", "green", domain=domain)
    out = tmp_path / "updated"
    result = update(UpdateConfig(run_folder, corrections=folder.file.path, out=out, device="cpu"))
    listed = read_image_list(out)
    assert {image["path"]: image["domain"] for image in listed}[known["path"]] == "striped"
    new = [image["domain"] for image in listed if image["path"].startswith(str(folder.path))]
    assert new == ["plain", "attic", ""]
    assert result["changes"]["new_domains"] == ["attic"]
    named = update(
        UpdateConfig(run_folder, corrections=folder.file.path, domain="cellar", out=tmp_path / "b", device="cpu")
    )
    new = [i["domain"] for i in read_image_list(tmp_path / "b") if i["path"].startswith(str(folder.path))]
    assert new == ["plain", "attic", "cellar"]
    assert known["path"] in {change["path"] for change in named["changes"]["corrected"]}
