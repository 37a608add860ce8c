import csv
import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from transfer.adaptation.adapt import adapt
from transfer.data.sets.load import load_table
from transfer.runs.image_list import read_image_list


def test_several_seeds_are_one_result(config, tiny, tmp_path):
    out = tmp_path / "run"
    run = adapt(config(method=("mcc",), seeds=(0, 3), out=out), images=tiny)
    result = run.result
    each = [one["target"]["object"]["accuracy"] for one in result["seeds"]]
    assert [one["seed"] for one in result["seeds"]] == [0, 3]
    assert result["target"]["object"]["accuracy"] == pytest.approx(np.mean(each))
    assert result["sd"]["target"]["object"]["accuracy"] == pytest.approx(np.std(each, ddof=1))
    assert "accuracy" in result["sd"]["source_only"]["object"]
    assert len(result["selection"]["chosen"]) == 2
    assert result["selection"]["oracle_accuracy"] == pytest.approx(
        np.mean([one["selection"]["oracle_accuracy"] for one in result["seeds"]])
    )
    alone = adapt(config(method=("mcc",), seed=3, out=tmp_path / "alone"), images=tiny)
    assert each[1] == alone.result["target"]["object"]["accuracy"]
    model = "model.safetensors"
    assert (out / "seed3" / model).read_bytes() == (tmp_path / "alone" / model).read_bytes()
    assert (out / model).read_bytes() == (out / "seed0" / model).read_bytes()
    assert len(run.tests) == 2


def read_list(folder):
    return {image["path"]: image for image in read_image_list(folder)}


@pytest.mark.parametrize(
    "how",
    [{}, {"protocol": "inductive"}, {"protocol": "inductive", "target_labels": 2}, {"target_labels": 2, "val": 0.0}],
)
def test_images_are_listed_with_their_part_and_target_labels_where_they_are_tested_on(how, config, tiny, tmp_path):
    result = adapt(config(method=("mcc",), out=tmp_path / "run", **how), images=tiny).result
    listed, counts = read_list(tmp_path / "run"), result["images"]
    tested = {row["path"]: row["object"] for row in csv.DictReader((tmp_path / "run" / "predictions.csv").open())}
    of_part = {part: {p for p, image in listed.items() if image["split"] == part} for part in ("train", "val", "test")}
    assert of_part["test"] == set(tested)
    assert len(of_part["val"]) == counts["val"]
    in_target = {path for path in listed if Path(path).parts[-3] == "striped"}
    assert len(of_part["train"] - in_target) == counts["source"]
    labelled = {path for path in of_part["train"] & in_target if listed[path]["object"]}
    assert len(labelled) == counts["target_labelled"]
    for path, image in listed.items():
        shown = "" if path in of_part["train"] & in_target - labelled else Path(path).parent.name
        assert (image["object"], image["domain"]) == (shown, Path(path).parts[-3])
        assert image["sha256"] == hashlib.sha256(Path(path).read_bytes()).hexdigest()


def test_a_target_without_labels_has_none_in_the_list(config, folder, tmp_path):
    target = tmp_path / "target"
    target.mkdir()
    for i, file in enumerate(sorted((folder / "striped").rglob("*.png"))):
        shutil.copyfile(file, target / f"{i}.png")
    source = config(method=("mcc",), out=tmp_path / "run", target="target")
    shift = replace(source.shift, target="", target_images=target, data=str(folder / "plain"), source=())
    adapt(replace(source, shift=shift))
    listed = read_list(tmp_path / "run")
    assert {image["object"] for path, image in listed.items() if path.startswith(str(target))} == {""}
    assert {image["split"] for path, image in listed.items() if path.startswith(str(target))} == {"test"}
    assert len(listed) == 48


def test_train_reads_the_list_as_source_and_target_test(config, tiny, tmp_path):
    adapt(config(method=("mcc",), out=tmp_path / "run"), images=tiny)
    table = load_table(str(tmp_path / "run" / "images.csv"))
    assert np.unique(table.split, return_counts=True)[1].tolist() == [24, 22, 2]
    assert table.objects == ("blue", "green", "red")
