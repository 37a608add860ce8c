"""Law 3: no label of the target that was not given has a part in any prediction, choice, score or saved byte."""

import csv
from dataclasses import replace

import numpy as np
import pytest

from transfer.adaptation.adapt import adapt
from transfer.adaptation.registry import METHODS
from transfer.adaptation.selection.validators import VALIDATORS
from transfer.data.table import make_softmax_target
from transfer.training.setup import Images

TARGET = "striped"


def relabelled(images, names):
    """Return `images` with objects called `names`, ``""`` where nobody knows."""
    targets = images.table.targets | {"object": make_softmax_target(names.tolist())}
    return Images(replace(images.table, targets=targets), images.inspection)


def names_of(images):
    table = images.table
    return np.array(table.objects, dtype="<U16")[table.object], table.domain == table.domains.index(TARGET)


def shuffled(images):
    names, target = names_of(images)
    names[target] = np.random.default_rng(1).permutation(names[target])
    return relabelled(images, names)


def deleted(images):
    names, target = names_of(images)
    names[target] = ""
    return relabelled(images, names)


def spoilt(images):
    """Return `images` whose target has labels at random, and a third of them gone."""
    names, target = names_of(shuffled(images))
    names[np.flatnonzero(target)[::3]] = ""
    return relabelled(images, names)


def strange(images):
    """Return `images` whose target shows what no source image does."""
    names, target = names_of(images)
    names[target] = np.where(np.arange(target.sum()) % 2, "aardvark", "zebra")
    return relabelled(images, names)


def outcome(config, images, folder):
    """Return all that may not depend on the target's labels, and the truth column, which has to."""
    run = adapt(replace(config, run=replace(config.run, out=folder, report=False)), images=images)
    with (folder / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    truth = [row.pop("object") for row in rows]
    selection = run.result["selection"]
    free = {
        "predictions": rows,
        "model": (folder / "model.safetensors").read_bytes(),
        "metrics": [line.split(', "seconds"')[0] for line in (folder / "metrics.jsonl").read_text().splitlines()],
        "selection": {key: selection[key] for key in ("rule", "chosen", "methods", "candidates") if key in selection},
        "shift": run.result.get("shift"),
        "images": run.result["images"],
    }
    return free, truth, run.result


def check(config, images, folder, change):
    free, truth, result = outcome(config, images, folder / "as it is")
    again, other, changed = outcome(config, change(images), folder / "changed")
    assert truth != other
    for key, value in free.items():
        assert str(again[key]) == str(value), key  # as text: NaN is not equal to itself
    return result, changed


@pytest.mark.parametrize(
    ("name", "change"),
    [
        *((name, spoilt) for name in METHODS if METHODS[name].uses_source),
        *((name, deleted) for name in ("source_only", "mcc", "shot", "auto")),
    ],
)
def test_every_method(config, tiny, tmp_path, monkeypatch, name, change):
    # what is said of the shift is slow, and the same for all of them: the tests of rules leave it in
    monkeypatch.setattr("transfer.adaptation.diagnostics.describe_shift", lambda *_, **__: ({}, []))
    policy = "partial:1" if name in ("adabn", "auto", "fixmatch", "shot") else "linear_probe"
    check(config(method=(name,), policy=policy, steps=2), tiny, tmp_path, change)


@pytest.mark.parametrize("rule", ["auto", *VALIDATORS])
def test_every_rule_between_methods_weights_and_epochs(config, tiny, tmp_path, rule):
    methods = ("source_only", "mcc", "centroids")
    result, changed = check(config(method=methods, weight=(0.5, 2.0), rule=rule), tiny, tmp_path, shuffled)
    # the oracle's column follows the labels, or they would never have come out at all
    assert result["target"] != changed["target"]
    assert result["source_only"] != changed["source_only"]


def partly_strange(images):
    """Return `images` of which every second one of the target shows what no source image does."""
    names, target = names_of(images)
    names[np.flatnonzero(target)[::2]] = "zebra"
    return relabelled(images, names)


def test_objects_that_only_the_target_shows(config, tiny, tmp_path):
    _, changed = check(config(method=("mcc",)), tiny, tmp_path, partly_strange)
    assert changed["target"]["object"]["accuracy"] <= 0.5
    assert any("show objects without any training label (zebra)" in note for note in changed["notes"])


def test_a_target_without_any_class_of_the_source_is_not_measured(config, tiny, tmp_path):
    _, changed = check(config(method=("mcc",)), tiny, tmp_path, strange)
    assert "accuracy" not in changed["target"]["object"]
    assert any("the source has no class aardvark, zebra" in note for note in changed["notes"])


def test_several_seeds_and_a_held_out_part(config, tiny, tmp_path):
    free, _, _ = outcome(config(method=("mcc",), seeds=(0, 1), protocol="inductive"), tiny, tmp_path / "a")
    again, _, _ = outcome(config(method=("mcc",), seeds=(0, 1), protocol="inductive"), deleted(tiny), tmp_path / "b")
    assert free["predictions"] == again["predictions"]
    assert free["model"] == again["model"]


def given(images, per_class, seed=0):
    """Return the target rows whose labels a run with ``--target-labels`` uses."""
    from transfer.adaptation.domains import split_domains

    made, _ = split_domains(
        images.table, images.inspection, sources=["plain"], target=TARGET, target_labels=per_class, seed=seed
    )
    return made.labelled


@pytest.mark.parametrize("name", ["source_only", "mcc", "mme", "growing", "shot", "auto"])
def test_only_the_given_target_labels_matter(config, tiny, tmp_path, name):
    kept = given(tiny, 2)
    assert len(kept) == 6

    def all_but_these(images):
        names, target = names_of(images)
        target[kept] = False
        names[target] = ""
        return relabelled(images, names)

    how = config(method=(name,), target_labels=2)
    check(how, tiny, tmp_path, all_but_these)
    names, _ = names_of(all_but_these(tiny))
    names[kept] = np.roll(names[kept], 2)  # and these do
    turned, *_ = outcome(how, relabelled(tiny, names), tmp_path / "turned")
    assert turned["model"] != (tmp_path / "changed" / "model.safetensors").read_bytes()
