import csv
import json
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from model_states import changed_names
from torch import nn

from transfer import backbones, freeze
from transfer.adaptation.adapt import adapt, read_domains
from transfer.adaptation.selection import validators
from transfer.data.table import make_softmax_target
from transfer.errors import TransferError
from transfer.evaluation.predict import predict
from transfer.feature_cache import TrunkCache
from transfer.model import TransferModel
from transfer.report.console.adaptation_text import adaptation_text
from transfer.report.page import write_report
from transfer.runs import checkpoint
from transfer.training.setup import Images

COMPARISON = "transfer.adaptation.selection.source_comparison.SourceComparison"


def some(images, rows):
    return Images(images.table.take(rows), images.inspection.take(rows))


def parts(images):
    """Return which rows are of the target, each row's object and its place among the eight of its cell."""
    table = images.table
    return table.domain == table.domains.index("striped"), table.object, np.arange(len(table)) % 8


def answers(folder):
    with (folder / "predictions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("method", "how"),
    [
        ("source_only", {}),
        ("mcc", {}),
        ("coral", {"protocol": "inductive"}),
        ("dann", {"policy": "partial:1"}),
        ("auto", {"policy": "partial:1", "protocol": "inductive"}),
        ("adabn", {"policy": "partial:1"}),
        ("mme", {"target_labels": 2, "policy": "partial:1"}),
    ],
)
def test_a_saved_run_predicts_what_was_reported(config, tiny, tmp_path, method, how):
    out = tmp_path / "run"
    result = adapt(config(method=(method,), out=out, **how), images=tiny).result
    rows = answers(out)
    assert result == json.loads((out / "result.json").read_text())
    assert len(rows) == result["target"]["object"]["n"] == result["images"]["test"]
    said = [row["object"] for row in predict(checkpoint.load_models(out), [row["path"] for row in rows])]
    assert said == [row["object_predicted"] for row in rows]
    right = [Path(row["path"]).parent.name == answer for row, answer in zip(rows, said, strict=True)]
    assert np.mean(right) == pytest.approx(result["target"]["object"]["accuracy"])
    assert all("striped" in row["path"] for row in rows)


@pytest.mark.parametrize(
    ("method", "how"),
    [("coral", {}), ("auto", {}), ("dann", {"policy": "partial:1"}), ("mme", {"target_labels": 2})],
)
def test_a_run_of_any_device_predicts_the_same_on_a_cpu(config, tiny, tmp_path, method, how, device):
    """But for an image on the border between two classes: devices round differently."""
    result = adapt(config(method=(method,), out=tmp_path / "run", device=device, **how), images=tiny).result
    rows = answers(tmp_path / "run")
    assert len(rows) == result["target"]["object"]["n"]
    found = predict(checkpoint.load_models(tmp_path / "run", "cpu"), [row["path"] for row in rows])
    differ = sum(a["object"] != b["object_predicted"] for a, b in zip(found, rows, strict=True))
    assert differ <= (0 if device == "cpu" else 2)


def test_what_the_result_says(config, tiny, tmp_path):
    out = tmp_path / "run"
    result = adapt(config(method=("mcc", "source_only"), out=out), images=tiny).result
    assert result["command"] == "adapt"
    assert result["config"]["shift"]["source"] == ["plain"]
    assert result["versions"]["torch"] == torch.__version__.split("+")[0]
    assert result["seconds"]["total"] >= result["seconds"]["train"] >= 0
    assert set(result["policy"]) >= {"trained_parameters", "frozen_parameters", "frozen_unchanged"}
    assert result["policy"]["frozen_unchanged"]
    counts = {"source": 22, "val": 2, "target": 24, "target_labelled": 0, "test": 24, "conflicting": 0}
    assert result["images"] == counts
    for part in ("target", "source_only"):
        assert set(result[part]["object"]) >= {"accuracy", "macro_f1", "n"}
    selection = result["selection"]
    assert selection["rule"] == "auto"
    assert selection["chosen"] in selection["candidates"]
    assert set(selection["candidates"]) == {"mcc, epoch 1", "mcc, epoch 2", "source_only"}
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["candidate"] for line in lines] == list(selection["candidates"])
    for line in lines:
        assert line["score"] == pytest.approx(selection["candidates"][line["candidate"]], abs=1e-5)
    with pytest.raises(TransferError, match="already holds a run"):
        adapt(config(out=out), images=tiny)
    adapt(config(out=out, overwrite=True), images=tiny)
    assert json.loads((out / "result.json").read_text())["selection"]["chosen"] == "source_only"


@pytest.mark.parametrize("rule", ["auto", "im", "source_val"])
def test_the_rule_alone_chooses_and_the_oracle_is_at_least_as_good(config, tiny, rule):
    methods = ("source_only", "mcc", "afn", "coral")
    result = adapt(config(method=methods, rule=rule, val=0.3), images=tiny).result
    selection = result["selection"]
    scores = [selection["methods"][name] for name in methods]
    winner = methods[validators.choose_best(scores)]
    assert selection["chosen"].split(",")[0] == winner
    own = {name: score for name, score in selection["candidates"].items() if name.split(",")[0] == winner}
    assert own[selection["chosen"]] == max(own.values())
    assert selection["oracle_accuracy"] >= result["target"]["object"]["accuracy"]
    assert selection["oracle_chosen"] in selection["candidates"]


def test_of_several_weights_the_rule_takes_one(config, tiny):
    selection = adapt(config(method=("mcc",), weight=(0.1, 3.0)), images=tiny).result["selection"]
    assert set(selection["candidates"]) == {f"mcc x {w}, epoch {e}" for w in ("0.1", "3") for e in (1, 2)}
    assert selection["candidates"][selection["chosen"]] == max(selection["candidates"].values())


@pytest.mark.parametrize("policy", ["linear_probe", "partial:1", "truncate:2+partial:1"])
def test_the_same_seed_gives_the_same_bytes_kept_or_not(config, tiny, tmp_path, policy):
    models, results = [], []
    for name, how in {"a": {}, "b": {"workers": 2}, "c": {"cache": False}}.items():
        made = config(method=("mcc", "auto"), policy=policy, out=tmp_path / name, report=False, **how)
        results.append(adapt(made, images=tiny).result)
        models.append((tmp_path / name / "model.safetensors").read_bytes())
    assert models[0] == models[1] == models[2]
    assert results[0]["selection"] == results[1]["selection"] == results[2]["selection"]


@pytest.mark.parametrize("method", ["mcc", "dann", "shot", "centroids", "auto", "adabn"])
def test_what_is_frozen_stays_and_what_may_move_does(config, tiny, monkeypatch, method):
    monkeypatch.setattr(f"{COMPARISON}.convincing", True)  # so auto trains the backbone
    run = adapt(config(method=(method,), policy="partial:1"), images=tiny)
    assert run.result["policy"]["frozen_unchanged"]
    fresh, after = backbones.load("test_resnet"), run.models[""].backbone
    plan = freeze.plan("partial:1", fresh, statistics="learning" if method == "adabn" else "frozen")
    assert not freeze.find_changed_tensors(
        freeze.hash_frozen_tensors(fresh, plan.phases), freeze.hash_frozen_tensors(after, plan.phases)
    )
    before = fresh.network.state_dict()
    moved = changed_names(before, after.network.state_dict())
    buffers = {name for name, _ in after.network.named_buffers()}
    assert {after.stage_of(name) for name in moved} <= {len(after.stages) - 1}
    assert moved
    # AdaBN moves statistics and nothing else; all others leave statistics alone
    assert moved <= buffers if method == "adabn" else not moved & buffers


@pytest.mark.parametrize("method", ["mcc", "adabn"])
def test_statistics_that_no_method_means_to_move_are_seen_to_move(config, tiny, monkeypatch, method):
    """Something moves a running mean of the last stage, which is trained, its statistics frozen."""
    features = TransferModel.features

    def meddle(self, activation):
        dict(self.backbone.network.named_buffers())["layer4.0.bn1.running_mean"].add_(0.01)
        return features(self, activation)

    monkeypatch.setattr(TransferModel, "features", meddle)
    result = adapt(config(method=(method,), policy="partial:1"), images=tiny).result
    assert result["policy"]["frozen_unchanged"] == (method == "adabn")


def test_two_sources_and_three_protocols(config, tiny):
    target, _, place = parts(tiny)
    names = np.where(target, "striped", np.where(place < 4, "plain", "other"))
    three = Images(
        replace(tiny.table, targets=tiny.table.targets | {"domain": make_softmax_target(names.tolist())}),
        tiny.inspection,
    )
    result = adapt(config(source=("plain", "other"), method=("mcc",)), images=three).result
    counts = {"source": 22, "val": 2, "target": 24, "target_labelled": 0, "test": 24, "conflicting": 0}
    assert result["images"] == counts
    result = adapt(config(source=("plain",), method=("mcc",), protocol="inductive"), images=three).result
    assert result["images"]["source"] + result["images"]["val"] == 12
    assert result["images"]["target"] == result["images"]["test"] == 12
    result = adapt(config(method=("mcc",), protocol="office"), images=tiny).result
    assert result["images"]["target_labelled"] == 9
    assert result["target"]["object"]["n"] == 15


def test_a_target_of_which_nobody_knows_anything(config, tiny, tmp_path):
    target, *_ = parts(tiny)
    names = np.where(target, "", np.array(tiny.table.objects)[tiny.table.object])
    bare = Images(
        replace(tiny.table, targets=tiny.table.targets | {"object": make_softmax_target(names.tolist())}),
        tiny.inspection,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = adapt(config(method=("mcc", "auto"), out=tmp_path / "run"), images=bare).result
    assert result["target"]["object"] == {"n": 0}
    assert result["selection"]["oracle_accuracy"] is None
    assert "no target labels: accuracy on striped is not measured" in result["notes"]
    assert {row["object"] for row in answers(tmp_path / "run")} == {""}
    assert {row["object_predicted"] for row in answers(tmp_path / "run")} <= {"blue", "green", "red"}
    page = write_report(tmp_path / "run").read_text(encoding="utf-8")
    assert "No target labels: accuracy on the target is not measured." in page
    assert "No object&#39;s accuracy changed" not in page.replace("'", "&#39;")
    text = adaptation_text(result)
    assert "no target labels: accuracy is not measured" in text
    assert "0.000" not in text.replace("+0.000", "")
    seeds = adapt(config(method=("mcc",), seeds=(0, 1)), images=bare).result
    assert seeds["selection"]["oracle_accuracy"] is None


def test_a_target_in_one_made_up_class_folder_is_as_without_labels(config, tiny):
    """All that is computed equals that of a target without a label; only the note names the folder."""
    target, *_ = parts(tiny)
    names = np.array(tiny.table.objects)[tiny.table.object]
    told, untold = (
        adapt(config(method=("mcc",)), images=Images(replace(tiny.table, targets=targets), tiny.inspection)).result
        for targets in (
            tiny.table.targets | {"object": make_softmax_target(np.where(target, name, names).tolist())}
            for name in ("unlabeled", "")
        )
    )
    for key in ("target", "source_only", "paired", "per_class_change", "selection", "shift", "shift_by_labels"):
        assert told[key] == untold[key]
    assert told["target"]["object"] == {"n": 0}
    assert told["selection"]["oracle_accuracy"] is None
    note = "no target labels: accuracy on striped is not measured"
    assert note in untold["notes"]
    assert f"{note} (the source has no class unlabeled, so this is read as no label)" in told["notes"]
    assert len(told["notes"]) == len(untold["notes"])


@pytest.mark.parametrize("method", ["source_only", "coral", "mcc", "dann", "shot", "transport", "growing", "auto"])
@pytest.mark.parametrize("case", ["one target image", "one image per class", "a class that the source lacks"])
def test_sets_that_are_hard(config, tiny, monkeypatch, method, case):
    monkeypatch.setattr("transfer.adaptation.diagnostics.describe_shift", lambda *_, **__: ({}, []))
    target, objects, place = parts(tiny)
    rows = {
        "one target image": ~target | (np.arange(48) == np.flatnonzero(target)[3]),
        "one image per class": target | (place == 0),
        "a class that the source lacks": target | (objects != 2),
    }[case]
    result = adapt(config(method=(method,)), images=some(tiny, np.flatnonzero(rows))).result
    accuracy, note = result["target"]["object"]["accuracy"], " ".join(result["notes"])
    assert result["selection"]["oracle_accuracy"] >= accuracy
    if case == "one target image":
        assert accuracy in (0, 1)
        assert "striped has a single image" in note
    elif case == "one image per class":
        assert result["images"]["source"] == 3
        assert "3 objects with a single image" in note
    else:
        assert accuracy <= 16 / 24
        assert "8 of 24 test images of striped show objects without any training label (red)" in note


def test_labels_of_the_target_help(config, tiny):
    """Source labels that are wrong throughout: with the target's own beside them it is right more often."""
    target, objects, _ = parts(tiny)
    names = np.array(tiny.table.objects)[np.where(target, objects, (objects + 1) % 3)]
    wrong = Images(
        replace(tiny.table, targets=tiny.table.targets | {"object": make_softmax_target(names.tolist())}),
        tiny.inspection,
    )
    none, three = (
        adapt(config(method=("standardise",), target_labels=k), images=wrong).result["target"]["object"]["accuracy"]
        for k in (0, 4)
    )
    assert three > none


def test_heads_are_of_the_width_asked_for(config, tiny):
    model = adapt(config(method=("mcc",), bottleneck=11), images=tiny).models[""]
    widths = [layer.out_features for layer in model.heads.modules() if isinstance(layer, nn.Linear)]
    assert widths == [11, 3]


def test_a_folder_is_read_whole(config, tiny):
    made = config()
    images = read_domains(made.shift, TrunkCache(made.cache))
    assert set(images.table.paths) == set(tiny.table.paths)


def test_a_table_names_the_labels_of_a_folder(config, tiny, tmp_path):
    rows = [f"{path},{'ab'[i % 2]},{'xy'[i // 2 % 2]}" for i, path in enumerate(tiny.table.paths)]
    (tmp_path / "list.csv").write_text("\n".join(["path,object,domain", *rows]))
    made = config(labels=str(tmp_path / "list.csv"))
    table = read_domains(made.shift, TrunkCache(made.cache)).table
    assert (table.objects, table.domains) == (("a", "b"), ("x", "y"))


def test_the_page_maps_both_sides_and_says_what_changed(config, tiny, tmp_path):
    out = tmp_path / "run"
    result = adapt(config(method=("mcc",), out=out), images=tiny).result
    found = json.loads((out / "exhibits.json").read_text())
    before, after = found["map"]["states"]
    assert (before["title"], after["title"]) == ("before", f"after ({result['selection']['chosen']})")
    assert found["map"]["names"]["domains"] == ["plain", "striped"]
    sizes = [sum(side == k for side in after["domains"]) for k in (0, 1)]
    assert sizes == [result["images"]["source"] + result["images"]["val"], result["images"]["target"]]
    said = [row["object_predicted"] for row in answers(out)]
    named = [
        found["map"]["names"]["objects"][k] for k, side in zip(after["objects"], after["domains"], strict=True) if side
    ]
    assert sorted(named) == sorted(said)  # of target images what is predicted, not the truth
    page = write_report(out).read_text(encoding="utf-8")
    assert "plain → striped" in page
    assert "Difference between adapted and source only" in page


def test_a_flat_folder_is_the_unlabelled_target(config, folder, tmp_path):
    """Without its class folders the target gives the model that it gives with hidden labels, and no accuracy."""
    flat = tmp_path / "street"
    flat.mkdir()
    for file in sorted((folder / "striped").glob("*/*.png")):
        (flat / f"{file.parent.name}-{file.name}").symlink_to(file)
    source = tmp_path / "labelled"
    source.mkdir()
    (source / "plain").symlink_to(folder / "plain")
    data = {"data": str(source / "plain"), "source": (), "method": ("coral",)}
    run = adapt(config(**data, target="", target_images=flat, out=tmp_path / "run"))
    assert run.result["images"]["target"] == run.result["images"]["test"] == 24
    assert run.result["config"]["shift"]["target"] == "street"
    assert run.result["target"]["object"] == {"n": 0}
    assert run.result["selection"]["oracle_accuracy"] is None
    assert "no target labels: accuracy on street is not measured" in run.result["notes"]
    rows = answers(tmp_path / "run")
    assert [row["path"] for row in rows] == sorted(map(str, flat.glob("*.png")))
    assert all(row["object_predicted"] and not row["object"] for row in rows)
    labelled = adapt(config(method=("coral",), data=str(folder)))
    before, after = ([values["object"] for _, values in each.tests] for each in (labelled, run))
    np.testing.assert_allclose(after[0], before[0], atol=1e-4)


def test_a_target_without_class_folders_inside_the_set_is_unlabelled(config, folder, tmp_path):
    """Its model is that of hidden labels, and its page has no section on measurements."""
    flat = tmp_path / "set" / "striped"
    flat.mkdir(parents=True)
    (flat.parent / "plain").symlink_to(folder / "plain")
    for file in sorted((folder / "striped").glob("*/*.png")):
        (flat / f"{file.parent.name}-{file.name}").symlink_to(file)
    outs = [tmp_path / "unlabelled", tmp_path / "labelled"]
    data = zip((flat.parent, folder), outs, strict=True)
    runs = [adapt(config(method=("coral",), data=str(data), out=out)) for data, out in data]
    assert runs[0].result["target"]["object"] == {"n": 0}
    assert "no target labels: accuracy on striped is not measured" in runs[0].result["notes"]
    predictions = [values["object"] for run in runs for _, values in run.tests]
    np.testing.assert_allclose(*predictions, atol=1e-4)
    pages = [write_report(out).read_text(encoding="utf-8") for out in outs]
    for section in ("accuracy", "confusion", "calibration"):
        assert [f'id="{section}"' in page for page in pages] == [False, True]
        assert [f'href="#{section}"' in page for page in pages] == [False, True]


@pytest.mark.parametrize("how", [{"target_labels": 2}, {"protocol": "office"}])
def test_a_flat_folder_has_no_target_labels(config, tmp_path, how):
    with pytest.raises(TransferError, match="--target-images have none"):
        config(target_images=tmp_path, **how)


@pytest.mark.parametrize("method", ["source_only", "auto", "mcc"])
def test_the_target_is_calibrated_without_its_labels_unless_it_shall_not_be(config, tiny, tmp_path, method):
    """The saved model's logits are divided by the result's temperature; no decision changes. `mcc` has no estimate."""
    table, runs = tiny.table, {}
    for calibrate in (False, True):
        out = tmp_path / str(calibrate)
        run = adapt(config(method=(method,), out=out, calibrate=calibrate), images=tiny)
        ((test, predictions),) = run.tests
        saved = [row["object_probability"] for row in predict(checkpoint.load_models(out), test.paths.tolist())]
        np.testing.assert_allclose(saved, predictions["object"].max(1), atol=1e-4)
        runs[calibrate] = run.result, predictions["object"]
    (plain, before), (calibrated, after) = runs[False], runs[True]
    assert plain["temperatures"] == {}
    assert list(calibrated["temperatures"]) == ([] if method == "mcc" else ["object"])
    assert 0 <= calibrated["target"]["object"]["calibration_error"] <= 1
    temperature = calibrated["temperatures"].get("object", 1.0)
    expected = torch.from_numpy(before.astype(np.float64)).log().div(temperature).softmax(1)
    np.testing.assert_allclose(after, expected, atol=2e-3)  # the result has 4 digits of the temperature
    assert plain["target"]["object"]["accuracy"] == calibrated["target"]["object"]["accuracy"]
    assert len(table) > len(after)
