import csv
import hashlib
import multiprocessing
from dataclasses import replace
from pathlib import Path
from shutil import copy, copytree

import pytest

from transfer.data.corrections import CORRECTION_HEADERS, Correction, CorrectionFile, apply_corrections, settle
from transfer.data.sets.load import load_table
from transfer.errors import TransferError


def decision(path, action="relabel", new="green", old="red"):
    digest = hashlib.sha256(Path(path).read_bytes()).hexdigest() if Path(path).is_file() else "0" * 64
    return Correction(str(path), digest, old, new, "2026-01-01T00:00:00+00:00", action)


@pytest.fixture
def data(folder, tmp_path):
    copytree(folder, tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def log(tmp_path):
    return CorrectionFile(tmp_path / "review/labels.csv")


def names_of(table):
    return {str(path): table.objects[k] for path, k in zip(table.paths, table.object, strict=True)}


def test_decisions_are_appended_and_read_back_whatever_the_names(log):
    odd = [Correction(f'a,"{chr(10)}\udcff.png', "0", "x\ny", "é; <b>", "t", "relabel"), Correction(*["b"] * 5, "undo")]
    assert log.read() == []
    for each in odd:
        assert log.append(each)
    assert log.read() == odd
    with log.path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        assert (
            next(csv.reader(file)) == list(CORRECTION_HEADERS[0]) == ["path", "sha256", "old", "new", "when", "action"]
        )


def test_a_decision_on_an_image_that_was_decided_meanwhile_is_not_stored(log):
    first = Correction("a", "0", "x", "y", "t", "relabel")
    assert log.append(first, seen=0)
    assert not log.append(replace(first, new="z"), seen=0)
    assert log.append(replace(first, path="b"), seen=0)
    assert log.append(replace(first, new="z"), seen=1)
    assert [(each.path, each.new) for each in log.read()] == [("a", "y"), ("b", "y"), ("a", "z")]


def append_many(path, name):
    for i in range(20):
        CorrectionFile(path).append(Correction(f"{name}{i}", "0", "x", "y", "t", "accept"), seen=0)


def test_processes_lose_no_decision_of_each_other(log):
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=append_many, args=(log.path, name)) for name in "ab"]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert sorted(each.path for each in log.read()) == sorted(f"{name}{i}" for name in "ab" for i in range(20))


def test_a_line_that_was_cut_off_is_ignored_and_overwritten(log):
    first = Correction("a", "0", "x", "y", "t", "relabel")
    log.append(first)
    with log.path.open("ab") as file:
        file.write(b"b,0,x,")
    assert log.read() == [first]
    log.append(replace(first, path="c"))
    assert [each.path for each in log.read()] == ["a", "c"]


def test_undo_takes_back_the_last_decision_of_its_image():
    def lines(*pairs):
        return [Correction(path, "", "", str(k), "", action) for k, (path, action) in enumerate(pairs)]

    settled = settle(
        lines(("a", "accept"), ("b", "exclude"), ("a", "relabel"), ("a", "undo"), ("b", "undo"), ("b", "undo"))
    )
    assert {path: each.new for path, each in settled.items()} == {"a": "0"}


def test_labels_change_and_images_are_excluded(data, log):
    for each in (
        decision(data / "plain/red/0.png"),
        decision(data / "plain/red/1.png", new="purple"),
        decision(data / "striped/red/2.png", "exclude", ""),
        decision(data / "striped/red/3.png", "accept", "red"),
    ):
        log.append(each)
    before, after = load_table(str(data)), load_table(str(data), corrections=log.path)
    expected = names_of(before)
    expected[str(data / "plain/red/0.png")] = "green"
    expected[str(data / "plain/red/1.png")] = "purple"
    del expected[str(data / "striped/red/2.png")]
    assert names_of(after) == expected
    assert after.objects == ("blue", "green", "purple", "red")
    assert any("2 labels changed, 1 image excluded" in note for note in after.notes)
    assert [Path(each.path).name for each in after.left_out] == ["2.png"]


def test_moved_images_are_found_by_their_bytes_and_changed_ones_are_named(data, log, tmp_path):
    log.append(decision(data / "plain/red/0.png"))
    log.append(decision(data / "plain/red/1.png"))
    copy(data / "plain/red/5.png", data / "plain/red/1.png")
    data.rename(tmp_path / "moved")
    after = load_table(str(tmp_path / "moved"), corrections=log.path)
    names = names_of(after)
    assert names[str(tmp_path / "moved/plain/red/0.png")] == "green"
    assert names[str(tmp_path / "moved/plain/red/1.png")] == "red"
    assert any("1 corrections" in note and "no such image" in note for note in after.notes)


def test_a_file_that_was_changed_keeps_its_label(data, log):
    log.append(decision(data / "plain/red/1.png"))
    copy(data / "plain/red/5.png", data / "plain/red/1.png")
    after = load_table(str(data), corrections=log.path)
    assert names_of(after)[str(data / "plain/red/1.png")] == "red"
    assert any("was changed since" in note for note in after.notes)


def test_only_the_copy_that_was_decided_on_changes(data, log):
    copy(data / "plain/red/0.png", data / "plain/blue/copy.png")
    log.append(decision(data / "plain/blue/copy.png", new="red", old="blue"))
    names = names_of(load_table(str(data), corrections=log.path))
    assert names[str(data / "plain/blue/copy.png")] == "red"
    assert names[str(data / "plain/red/0.png")] == "red"


def test_rows_without_a_label_get_one(data, log, tmp_path):
    file = tmp_path / "images.csv"
    file.write_text(f"path,object\n{data}/plain/red/0.png,\n{data}/plain/blue/0.png,blue\n")
    log.append(decision(data / "plain/red/0.png", old=""))
    after = load_table(str(file), corrections=log.path)
    assert [*names_of(after).values()] == ["green", "blue"]
    assert after.unlabelled == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,object\na,b\n", "is no file of corrections"),
        (",".join(CORRECTION_HEADERS[0]) + "\na,b\n", "line 2: no decision"),
        (",".join(CORRECTION_HEADERS[0]) + "\na,b,c,d,e,delete\n", "line 2: no decision"),
    ],
)
def test_other_files_are_refused(images, tmp_path, text, message):
    file = tmp_path / "labels.csv"
    file.write_text(text)
    with pytest.raises(TransferError, match=message):
        apply_corrections(images, file)


def test_a_missing_file_is_refused(images, tmp_path):
    with pytest.raises(TransferError, match="no file"):
        apply_corrections(images, tmp_path / "none.csv")


def test_the_first_stated_domain_adds_a_column_and_loses_nothing(log):
    plain = [decision("a"), decision("b", new='x,"y"')]
    for each in plain:
        log.append(each)
    before = log.path.read_bytes()
    stated = replace(decision("a", new="blue"), domain="striped")
    assert log.append(stated, seen=1)
    assert log.path.read_text().splitlines()[0] == "path,sha256,old,new,when,action,domain"
    assert log.read() == [*plain, stated]
    log.append(decision("c"))
    assert log.read() == [*plain, stated, decision("c")]
    assert before.splitlines()[1] + b"," == log.path.read_bytes().splitlines()[1]
    assert settle(log.read())["a"].domain == "striped"


def test_a_stated_domain_replaces_that_of_the_image_alone(data, log):
    table = load_table(str(data))
    paths = [str(path) for path in table.paths]
    digest = hashlib.sha256(Path(paths[0]).read_bytes()).hexdigest()
    name = table.objects[table.object[0]]
    log.append(Correction(paths[0], digest, name, name, "t", "relabel", "indoors"))
    found = load_table(str(data), corrections=log.path)
    domains = [found.domains[k] for k in found.domain]
    assert domains == ["indoors", *(table.domains[k] for k in table.domain[1:])]
    assert any("0 labels changed, 0 images excluded, 1 domain changed" in note for note in found.notes)
