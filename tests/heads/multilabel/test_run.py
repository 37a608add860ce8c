"""A head with several labels an image through every command: the tiny set, its colour and its stripes as labels."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from saved_runs import read_run
from sklearn.metrics import average_precision_score, f1_score

from transfer.config.commands import AdviseConfig, EvaluateConfig, ExportConfig
from transfer.config.train import BackboneConfig, CompareConfig, DataConfig, RegulariseConfig, TrainConfig, ViewConfig
from transfer.data.label_sets.cells import read_label_sets
from transfer.data.table import ImageTable
from transfer.errors import TransferError
from transfer.evaluation.evaluate import evaluate
from transfer.evaluation.finished_run import load_run
from transfer.formats import export
from transfer.report.console.run_text import comparison_text, run_text
from transfer.report.page import write_report
from transfer.training.compare import compare
from transfer.training.resume import FitCheckpoints
from transfer.training.train import train
from transfer.tuning.advise import advise

SHARED = Path(__file__).parents[4] / "shared"


def write_tags(images: ImageTable, file: Path, *, objects: bool = False) -> Path:
    """Write a manifest: colour and stripes are labels, a few images have none, others an unknown one or no cell."""
    with file.open("w", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(["path", "tags", *["object"] * objects])
        for row, path in enumerate(images.paths):
            colour = images.objects[images.object[row]]
            labels = [colour] * (colour != "green") + ["striped"] * int(images.domain[row])
            cell = "|".join(labels) or "none"
            cell = "" if row % 13 == 5 else cell.replace("red", "?red") if row % 16 == 3 else cell
            writer.writerow([path, cell, *[colour] * objects])
    return file


@pytest.fixture
def make(config: Callable[..., TrainConfig], images: ImageTable, tmp_path: Path) -> Callable[..., TrainConfig]:
    def made(*, objects: bool = False, **settings: Any) -> TrainConfig:
        file = write_tags(images, tmp_path / "things.csv", objects=objects)
        return config(**{"data": str(file), "targets": ("tags",), "workers": 1} | settings)

    return made


def read_rows(run: Path) -> list[dict[str, str]]:
    with (run / "predictions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_train_evaluate_predict_report_and_export(make, images, tmp_path):
    out = tmp_path / "run"
    result = train(make(out=out, report=True)).result
    assert set(result["test"]) == {"tags"}
    assert result["policy"]["frozen_unchanged"]
    assert isinstance(result["epochs"]["model"][0], dict)  # solved
    rows = read_rows(out)
    labels = ["blue", "red", "striped"]
    true = read_label_sets("tags", [row["tags"] for row in rows], str)
    assert true.classes == tuple(labels)
    p = np.array([[float(row[f"tags:{label}"]) for label in labels] for row in rows])
    report = result["test"]["tags"]
    per_label = report["per_label"]
    for i, label in enumerate(labels):
        known = true.values[:, i] >= 0
        y = true.values[known, i]
        assert per_label[label]["ap"] == pytest.approx(average_precision_score(y, p[known, i]), abs=1e-4)
        called = p[known, i] >= per_label[label]["threshold"]
        assert per_label[label]["f1"] == pytest.approx(f1_score(y, called), abs=1e-4)
    assert report["map"] > 0.8

    again = evaluate(EvaluateConfig(out))
    assert again["test"]["tags"]["per_label"] == per_label
    assert again["test"]["tags"]["interval"] == report["interval"]
    elsewhere = evaluate(EvaluateConfig(out, data=str(tmp_path / "things.csv")))
    assert elsewhere["test"]["tags"]["n"] == len(images) - len(range(5, 48, 13))

    told = load_run(out).predict(rows[0]["path"])[0]
    assert "|".join(sorted(told["tags"])) == rows[0]["tags_predicted"].replace("none", "")
    assert len(told["tags_probability"]) == len(told["tags"])
    assert len(told["tags_top"]) == 3

    assert "tags, by label" in write_report(out).read_text()
    text = run_text(result)
    assert "mAP" in text
    assert "threshold" in text
    card = (out / "README.md").read_text()
    assert "Predicts which labels" in card
    assert "Tags, 3 labels in test" in card

    export(ExportConfig(out, "safetensors", tmp_path / "exported.safetensors"))
    about = json.loads((tmp_path / "exported.json").read_text())["heads"]["tags"]
    assert about["thresholds"] == [per_label[label]["threshold"] for label in labels]
    assert export(ExportConfig(out, "torch_export", tmp_path / "exported.pt2")).difference < 1e-4
    with pytest.raises(TransferError, match="its classifier is the object head, and there is none"):
        export(ExportConfig(out, "timm", tmp_path / "exported"))


def test_onnx_has_the_probabilities_and_the_labels(make, images, tmp_path):
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    out = tmp_path / "run"
    train(make(out=out, report=False))
    export(ExportConfig(out, "onnx", tmp_path / "model.onnx"))
    session = runtime.InferenceSession(str(tmp_path / "model.onnx"))
    names = [output.name for output in session.get_outputs()]
    assert names == ["tags_logits", "tags_probabilities", "tags_labels"]
    pixels = np.random.default_rng(0).integers(0, 256, (5, 3, 32, 32)).astype(np.uint8)
    _, p, called = session.run(names, {"images": pixels})
    (spec,) = load_run(out).models[""].heads.specs.values()
    assert len(spec.thresholds) == 3
    np.testing.assert_array_equal(called, p >= np.array(spec.thresholds, np.float32))
    found = {p.key: json.loads(p.value) for p in onnx.load(str(tmp_path / "model.onnx")).metadata_props}
    about = found["transfer"]
    assert about["heads"]["tags"]["thresholds"] == list(spec.thresholds)


@pytest.mark.parametrize("policy", ["stage_probes", "head2toe:50", "lp_ft:1", "full"])
def test_every_kind_of_policy_trains_it(make, policy):
    result = train(make(policy=policy, epochs=2)).result
    assert result["test"]["tags"]["map"] > 0.4
    assert result["policy"]["frozen_unchanged"]


@pytest.mark.parametrize(
    "settings",
    [
        {"loss": "asymmetric", "probe": "trained"},
        {"loss": "asymmetric", "policy": "partial:1"},
        {"loss": "hinge", "policy": "partial:1"},
        {"hidden": (8,)},
        {"policy": "partial:1", "regularise": RegulariseConfig(mixup=0.4)},
        {"policy": "full", "regularise": RegulariseConfig(cutmix=1.0), "label_smoothing": 0.2},
    ],
)
def test_trained_heads_learn(make, settings):
    result = train(make(**{"epochs": 12, "lr": 0.01} | settings)).result
    assert isinstance(result["epochs"]["model"][0], int)
    assert result["test"]["tags"]["map"] > 0.6


def test_a_solved_probe_refuses_the_asymmetric_loss(make):
    with pytest.raises(TransferError, match=r"^--loss asymmetric: no effect on a solved probe"):
        train(make(loss="asymmetric"))


def test_the_same_seed_gives_the_same_thresholds(make):
    first, second = (train(make()).result["test"] for _ in range(2))
    assert first == second


def test_a_finished_run_resumes(make, tmp_path):
    result = train(make(out=tmp_path / "run", report=False)).result
    assert train(make(out=tmp_path / "run", report=False, resume=True)).result["test"] == result["test"]


class Killed(BaseException):
    """As SIGKILL: nothing is saved."""


@pytest.mark.parametrize(
    "settings",
    [
        {"epochs": 2},  # solved
        {"probe": "trained", "loss": "asymmetric", "epochs": 3, "batch_size": 12},
        {"policy": "partial:1", "augment": "flip", "epochs": 2, "batch_size": 12, "refit": True},
        {"policy": "partial:1", "objects": True, "epochs": 2, "batch_size": 12},
    ],
)
def test_a_run_that_is_killed_again_and_again_resumes_to_the_same_bits(make, settings, tmp_path, monkeypatch):
    train(make(out=tmp_path / "whole", **settings))
    step, kills = FitCheckpoints.step, 0

    def stretch(steps):
        left = [steps]

        def counted(self, save, *, end=False):
            step(self, save, end=end)
            left[0] -= 1
            if not left[0]:
                raise Killed

        monkeypatch.setattr(FitCheckpoints, "step", counted)

    while kills < 100:
        stretch(3)
        try:
            train(make(out=tmp_path / "parted", resume=True, checkpoint_minutes=0, **settings))
            break
        except Killed:
            kills += 1
            assert (tmp_path / "parted" / "states").is_dir()
    assert kills >= 2 or settings == {"epochs": 2}
    monkeypatch.undo()
    parted = read_run(tmp_path / "parted")
    assert {"model.safetensors", "predictions.csv", "images.csv", "metrics.jsonl"} < set(parted)
    assert parted == read_run(tmp_path / "whole")


def test_objects_and_labels_have_a_head_each(make, tmp_path):
    result = train(make(objects=True, out=tmp_path / "run", report=True)).result
    assert result["test"]["object"]["accuracy"] > 0.6
    assert result["test"]["tags"]["map"] > 0.6
    assert set(result["uncertainty"]["heads"]) == {"object"}
    told = load_run(tmp_path / "run").predict(read_rows(tmp_path / "run")[0]["path"], coverage=0.9)[0]
    assert {"object", "object_set", "tags"} <= set(told)
    assert "tags_set" not in told
    again = evaluate(EvaluateConfig(tmp_path / "run"))
    assert again["test"]["tags"]["map"] == pytest.approx(result["test"]["tags"]["map"], abs=1e-4)


def test_an_ensemble_and_views_have_labels(make, tmp_path):
    for seed in (0, 1):
        train(make(out=tmp_path / f"run{seed}", report=False, seed=seed, split_seed=0))
    both = evaluate(EvaluateConfig(tmp_path / "run0", (tmp_path / "run1",)))
    specs = [load_run(tmp_path / f"run{seed}").models[""].heads.specs["tags"] for seed in (0, 1)]
    mean = np.mean([spec.thresholds for spec in specs], 0)
    found = [label["threshold"] for label in both["test"]["tags"]["per_label"].values()]
    assert found == pytest.approx(mean.tolist())
    views = evaluate(EvaluateConfig(tmp_path / "run0", view=ViewConfig(test_crops=10)))
    assert views["test"]["tags"]["n"] == both["test"]["tags"]["n"]
    assert views["test"]["tags"]["map"] > 0.6


def test_several_seeds_and_policies_are_compared_by_map(make, tmp_path):
    result = train(make(seeds=(0, 1), out=tmp_path / "run")).result
    scores = [seed["test"]["tags"]["map"] for seed in result["seeds"]]
    assert result["test"]["tags"]["map"] == pytest.approx(np.mean(scores))
    assert "±" in run_text(result)
    compared = compare(CompareConfig(make(epochs=2, out=tmp_path / "both"), ("linear_probe", "partial:1")))
    head, *rows, explained = comparison_text(compared).splitlines()
    assert "tags - linear_probe" in head
    assert len(rows) == 2
    assert explained == "[ ]: 95 % interval"
    test = compared["paired"]["partial:1"]["tags"]
    scores = [compared["runs"][policy]["test"]["tags"]["map"] for policy in ("partial:1", "linear_probe")]
    assert test["difference"] == pytest.approx(scores[0] - scores[1])
    assert f"{test['difference']:+.3f} [{test['interval'][0]:+.3f}, " in rows[1]
    page = write_report(tmp_path / "both").read_text()
    assert "mean average precision, without a p-value" in page
    assert f">{100 * test['difference']:+.1f}<" in page


def test_options_of_objects_are_refused(make):
    with pytest.raises(TransferError, match=r"^--balance loss, --heads joint goes by the object of each image"):
        train(make(balance="loss", heads="joint"))


def test_advice_is_refused(make):
    with pytest.raises(TransferError, match="advice on a policy goes by the object of each image"):
        advise(AdviseConfig(make()))
    with pytest.raises(TransferError, match="advice on a policy goes by the object of each image"):
        train(make(policy="auto"))


def test_prediction_sets_are_refused(make, tmp_path):
    train(make(out=tmp_path / "run", report=False))
    with pytest.raises(TransferError, match="coverage"):
        load_run(tmp_path / "run").predict(read_rows(tmp_path / "run")[0]["path"], coverage=0.9)


@pytest.mark.skipif(
    not (SHARED / "weights").is_dir(), reason="needs shared/ with Office-31 and ImageNet weights beside the checkout"
)
def test_objects_and_their_groups_as_labels_of_photographs(monkeypatch, tmp_path):
    """Each photograph of webcam has its object and two groups for labels."""
    monkeypatch.setenv("TRANSFER_WEIGHTS", str(SHARED / "weights"))
    groups = {"screen": ("laptop_computer", "monitor", "projector"), "stationery": ("pen", "ruler", "scissors")}
    file = tmp_path / "webcam.csv"
    with file.open("w", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(["path", "tags"])
        for path in sorted((SHARED / "data/office31/webcam/images").glob("*/*.jpg")):
            name = path.parent.name
            writer.writerow([path, "|".join([name, *(group for group, members in groups.items() if name in members)])])
    settings = TrainConfig(DataConfig(str(file), targets=("tags",)), BackboneConfig("mobilenetv2_100"))
    report = train(settings).result["test"]["tags"]
    assert report["map"] > 0.95
    assert report["micro_f1"] > 0.9
    assert {"screen", "stationery"} < set(report["per_label"])
