import csv
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from PIL import Image

from transfer.data.table import ImageTable, make_softmax_target
from transfer.runs.facts import format_facts
from transfer.training.train import train


def make_table(objects, domains, **more):
    blank = np.full(len(objects), "")
    targets = {"object": make_softmax_target(objects), "domain": make_softmax_target(domains)}
    return ImageTable(np.array([f"{i}.png" for i in range(len(objects))]), targets, blank, blank, **more)


def test_the_facts_of_a_set():
    table = make_table(["a", "b", "b", "b", "c", "c", ""], ["x"] * 5 + ["y"] * 2)
    table = replace(table, left_out=(*((f"{n}.txt", "not an image") for n in "klmn"), (".x", "hidden")))
    backbone = SimpleNamespace(name="net", weights="package some-model", licence="Apache-2.0")
    assert format_facts(table, {"train": 4, "test": 2}, backbone, "full", True).splitlines() == [
        "images    7 in 3 classes: least a (1), most b (3); 1 unlabelled",
        "domains   x 5, y 2",
        "split     train 4, test 2",
        "backbone  net, weights: package some-model, licence Apache-2.0",
        "policy    full",
        "left out  4 files, not an image: k.txt, l.txt, m.txt, …",
        "left out  1 file, hidden: .x",
        "          all names are in left_out.csv of the run folder",
    ]


def test_equal_classes_many_domains_and_random_weights():
    names = [f"d{n}" for n in range(10)]
    backbone = SimpleNamespace(name="net", weights="random", licence="MIT")
    lines = format_facts(make_table(["a", "b"] * 5, names), {"train": 10}, backbone, "scratch", False).splitlines()
    assert lines[0] == "images    10 in 2 classes: 5 in each"
    assert lines[1] == f"domains   {', '.join(f'{name} 1' for name in names[:8])}; 2 more"
    assert lines[3] == "backbone  net, weights: random"


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
