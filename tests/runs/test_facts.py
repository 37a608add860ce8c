import csv
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from transfer.config.commands import AdviseConfig, LrFindConfig, SearchConfig
from transfer.config.train import CompareConfig
from transfer.data.folders import read_folder
from transfer.data.label_sets.combinations import use_label_sets
from transfer.data.left_out import LeftOut
from transfer.data.manifests.manifest import NO_OBJECT, read_manifest
from transfer.data.table import DEFAULT_DOMAIN, ImageTable, make_softmax_target
from transfer.errors import TransferError
from transfer.runs.facts import FactLog, describe_images, describe_network, describe_reading
from transfer.training.compare import compare
from transfer.training.train import train
from transfer.tuning.advise import advise
from transfer.tuning.lr_find import lr_find
from transfer.tuning.search import search


def make_table(objects, domains, **more):
    blank = np.full(len(objects), "")
    targets = {"object": make_softmax_target(objects), "domain": make_softmax_target(domains)}
    return ImageTable(np.array([f"{i}.png" for i in range(len(objects))]), targets, blank, blank, **more)


def test_the_facts_of_a_set():
    table = make_table(["a", "b", "b", "b", "c", "c", ""], ["x"] * 5 + ["y"] * 2)
    left_out = (*(LeftOut(f"{n}.txt", "not an image") for n in "klmn"), LeftOut(".x", "hidden"))
    table = replace(table, left_out=left_out)
    facts = describe_images(table, {"train": 4, "test": 2}, True)
    assert facts == {
        "images": "7 in 3 classes: least a (1), most b (3); 1 unlabelled",
        "domains": "x 5, y 2",
        "split": "train 4, test 2",
        "left out": "4 files, not an image: k.txt, l.txt, m.txt, …\n          1 file, hidden: .x\n"
        "          all names are in left_out.csv of the run folder",
    }
    assert "left_out.csv" not in describe_images(table, {}, False)["left out"]
    named = replace(table, left_out=(LeftOut(".x", "hidden"),))
    assert describe_images(named, {}, True)["left out"] == "1 file, hidden: .x"


def test_rows_are_named_with_where_they_are_listed():
    lines = [LeftOut("a.png", "no file", "x.csv line 2"), LeftOut("", "no file", "x.csv line 3")]
    table = replace(make_table(["a", "b"], "xy"), left_out=tuple(lines[:1]), unlabelled=tuple(lines[1:]))
    assert describe_images(table, {}, True)["left out"] == "2 files, no file: a.png (x.csv line 2), x.csv line 3"


def test_images_of_an_unknown_domain_are_counted():
    assert (
        describe_images(make_table(["a", "b", "b"], ["x", "", ""]), {}, False)["domains"]
        == "x 1; 2 of an unknown domain"
    )


def test_equal_classes_and_many_domains_or_none():
    names = [f"d{n}" for n in range(10)]
    facts = describe_images(make_table(["a", "b"] * 5, names), {"train": 10}, False)
    assert facts["images"] == "10 in 2 classes: 5 in each"
    assert facts["domains"] == f"{', '.join(f'{name} 1' for name in names[:8])}; 2 more"
    assert describe_images(make_table(["a", "b"], [DEFAULT_DOMAIN] * 2), {}, False)["domains"] == "one"


@pytest.mark.parametrize(
    ("weights", "told"),
    [
        ("package some-model", "net, weights: package some-model, licence MIT"),
        ("random", "net, weights: random"),
        ("bundle", "net, weights: bundle, licence MIT; pretrained on rendered letters, not ImageNet"),
    ],
)
def test_weights_are_told_with_their_licence_unless_they_are_random(weights, told):
    backbone = SimpleNamespace(name="net", weights=weights, licence="MIT")
    assert describe_network(backbone, "full") == {"backbone": told, "policy": "full"}


def test_a_later_run_logs_only_what_differs(caplog):
    caplog.set_level("INFO", "transfer")
    facts = FactLog()
    for policy in ("full", "full", "scratch", "full"):
        facts.log({"images": "7", "policy": policy})
    assert caplog.messages == ["images    7\npolicy    full", "policy    scratch", "policy    full"]


def test_each_command_logs_the_facts_once_before_it_works(config, caplog):
    base = config(probe="trained", epochs=2)
    commands = {
        "compare": lambda: compare(CompareConfig(config(), ("linear_probe", "partial:1"))),
        "auto": lambda: train(config(policy="auto")),
        "advise": lambda: advise(AdviseConfig(config())),
        "search": lambda: search(SearchConfig(base, ("lr", "policy=linear_probe,full"), trials=2, final=True)),
        "lr-find": lambda: lr_find(LrFindConfig(base, steps=10)),
    }
    policies = {}
    for name, command in commands.items():
        caplog.clear()
        with caplog.at_level("INFO", "transfer"):
            command()
        lines = [line for message in caplog.messages for line in message.splitlines()]
        kinds = [line[:10].strip() for line in lines]
        assert [kinds.count(kind) for kind in ("images", "domains", "split", "backbone")] == [1] * 4, name
        assert kinds[:4] == ["images", "domains", "split", "backbone"], name
        policies[name] = [line[10:] for line, kind in zip(lines, kinds, strict=True) if kind == "policy"]
    assert policies["compare"] == ["linear_probe", "partial:1"]
    assert policies["auto"][0] == policies["advise"][0] == "to be advised"
    assert policies["lr-find"] == ["linear_probe"]
    assert policies["search"][0] == "linear_probe,full"
    assert policies["search"][1] in ("linear_probe", "full")


def test_every_file_that_is_left_out_is_named_in_the_run_folder(config, tmp_path):
    rng, data = np.random.default_rng(0), tmp_path / "data"
    for name in ("a", "b"):
        (data / name).mkdir(parents=True)
        for i in range(6):
            Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(data / name / f"{i}.png")
    texts = [f"a/{i}.txt" for i in range(7)]
    for name in (*texts, "b/.hidden.png"):
        (data / name).write_text("no image")
    bad = data / "b" / "bad.png"
    bad.write_bytes(b"no image")
    out, settings = tmp_path / "run", {"data": str(data), "on_bad_image": "skip", "policy": "linear_probe"}
    train(config(out=out, seeds=(0, 1), **settings))
    for folder in (out, out / "seed0", out / "seed1"):
        with (folder / "left_out.csv").open(newline="", encoding="utf-8") as file:
            rows = {(Path(row["path"]).as_posix(), row["reason"]) for row in csv.DictReader(file)}
        assert len(rows) == 9
        assert {(name, "not an image") for name in texts} <= rows
        assert ("b/.hidden.png", "hidden") in rows
        assert (bad.as_posix(), "not an image in a known format") in rows
    train(config(out=out, overwrite=True, **settings))  # the file is one of a run's own


def test_rows_of_a_table_that_are_left_out_are_named_in_the_run_folder(config, tmp_path):
    rng = np.random.default_rng(0)
    for i in range(12):
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(tmp_path / f"{i}.png")
    rows = [f"{i}.png,{'ab'[i % 2]}" for i in range(11)]
    (tmp_path / "list.csv").write_text("\n".join(["path,object", *rows, "11.png,", "12.png,a", "0.png", ""]))
    settings = {"data": str(tmp_path / "list.csv"), "on_bad_image": "skip"}
    out = tmp_path / "run"
    train(config(out=out, **settings))
    with (out / "left_out.csv").open(newline="", encoding="utf-8") as file:
        found = [tuple(row.values()) for row in csv.DictReader(file)]
    assert sorted(found, key=lambda row: row[2]) == [
        (str(tmp_path / "11.png"), NO_OBJECT, "list.csv line 13"),
        ("12.png", "no file at this path", "list.csv line 14"),
        ("0.png", "1 cell, but the header has 2", "list.csv line 15"),
    ]
    with pytest.raises(TransferError, match=r"list.csv line 14: no file .*12.png"):
        train(config(**settings | {"on_bad_image": "refuse"}))


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_a_folder_with_everything(tmp_path):
    root = touch(
        tmp_path, "training/cat/1.png", "training/cat/2.png", "training/dog/3.png", "testing/cat/4.png", "logo.png"
    )
    (root / "testing" / "cat" / "notes.txt").touch()
    (root / "testing" / "empty").mkdir()
    table = read_folder(root)
    assert describe_reading(table) == [
        "images    4 in 2 classes: least dog (1), most cat (3)",
        "domains   one",
        "split     train 3, test 1",
        "left out  1 file, not an image: testing/cat/notes.txt\n          1 file, not in a class folder: logo.png",
        "note      1 folder without an image skipped: testing/empty",
    ]
    assert table.choices == ("splits by the folders on level 1: testing is test, training is train",)


def test_a_set_without_a_split_or_labels(tmp_path):
    root = touch(tmp_path, "ink/cat/1.png", "oil/cat/2.png")
    assert describe_reading(read_folder(root))[1:] == [
        "domains   ink 1, oil 1",
        "split     none given: drawn at random, by class and domain",
    ]
    (root / "tags.csv").write_text("path,tags\nink/cat/1.png,a|b\noil/cat/2.png,b\n")
    tags = describe_reading(use_label_sets(read_manifest(root / "tags.csv", ["tags"])))
    assert "split     none given: drawn at random, with a share of each label" in tags
    (root / "list.csv").write_text("path,object\nink/cat/1.png,\n")
    assert describe_reading(read_manifest(root / "list.csv"))[0] == "images    1, without labels"
