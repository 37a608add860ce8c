"""What the READMEs promise of every run, by behaviour: each test fails when the code breaks the promise."""

import csv
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from model_states import move_a_frozen_tensor
from PIL import Image

from transfer.adaptation.adapt import adapt
from transfer.cli.main import main
from transfer.evaluation.predict import predict
from transfer.runs import checkpoint
from transfer.runs.folder import UNCERTAINTY_FILE
from transfer.training.train import train

COLUMNS = ("path", "object", "domain", "split", "weight")


def write_table(file, rows):
    with file.open("w", newline="") as out:
        writer = csv.DictWriter(out, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def manifest(images, tmp_path):
    """A CSV file of copies of the tiny images: 4 of each 8 train, 2 val, 2 test; `weight` is a regression target."""
    rows, rng = [], np.random.default_rng(0)
    for i, path in enumerate(images.paths):
        domain, name = Path(str(path)).parts[-3:-1]
        copy = tmp_path / "set" / f"{domain}-{name}-{i}.png"
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(Path(str(path)).read_bytes())
        split = ("train", "train", "train", "train", "val", "val", "test", "test")[i % 8]
        weight = len(name) + rng.normal(0, 0.1)
        rows.append(dict(zip(COLUMNS, (copy.name, name, domain, split, weight), strict=True)))
    write_table(tmp_path / "set" / "labels.csv", rows)
    return tmp_path / "set" / "labels.csv"


def spoil_test_rows(manifest):
    """Replace the test images with noise, permute their labels and multiply their regression targets."""
    rows, rng = list(csv.DictReader(manifest.open(newline=""))), np.random.default_rng(1)
    names = sorted({row["object"] for row in rows})
    for row in rows:
        if row["split"] == "test":
            row["object"] = names[(names.index(row["object"]) + 1) % len(names)]
            row["domain"] = {"plain": "striped", "striped": "plain"}[row["domain"]]
            row["weight"] = 1000 + 50 * float(row["weight"])
            Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(manifest.parent / row["path"])
    write_table(manifest, rows)


# Of a result: measured on test rows, or names files.
MEASURED = ("test", "per_domain", "uncertainty", "seconds", "config", "notes")


def read_choices(run, folder):
    """Return all of a run that test rows may not change."""
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    choices = {key: value for key, value in run.result.items() if key not in MEASURED}
    return choices | {
        "model": hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest(),
        "prediction sets": hashlib.sha256((folder / UNCERTAINTY_FILE).read_bytes()).hexdigest(),
        "metrics": [{key: value for key, value in line.items() if key != "seconds"} for line in metrics],
    }


@pytest.mark.parametrize(
    "how",
    [
        {"policy": "linear_probe"},
        {"policy": "stage_probes"},
        {"policy": "head2toe"},
        {"policy": "partial:1", "precision": "float32"},
        {"policy": "partial:1", "refit": True, "balance": "loss"},
        {"policy": "lp_ft:1", "average": "ema"},
        {"policy": "full", "heads": "joint", "augment": "crop"},
    ],
    ids=lambda how: "-".join(str(value) for value in how.values()),
)
def test_test_rows_change_no_byte_of_the_model(config, manifest, tmp_path, how):
    """Not in training, in the refit on train and val, in the scale of a regression target, nor in any choice."""
    targets = () if how.get("heads") == "joint" else ("weight:regression",)
    runs = {}
    for name in ("as it is", "spoilt"):
        run = train(config(data=str(manifest), out=tmp_path / name, targets=targets, **how))
        runs[name] = run.result["test"], read_choices(run, tmp_path / name)
        spoil_test_rows(manifest)
    (test, choices), (other_test, other_choices) = runs.values()
    assert test != other_test
    assert json.dumps(other_choices) == json.dumps(choices)
    assert choices["images"]["test"] == 12


@pytest.mark.parametrize("method", [("source_only",), ("auto",), ("mcc",), ("coral",), ("mcc", "dann")], ids="-".join)
def test_test_images_of_the_inductive_protocol_change_no_byte_of_the_model(adapt_config, folder, tmp_path, method):
    """They are replaced by noise: no method, statistic, score or choice may see them."""
    runs, tested = {}, []
    for name in ("as it is", "spoilt"):
        data = tmp_path / name
        for image in sorted(folder.rglob("*.png")):
            copy = data / image.relative_to(folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(image.read_bytes())
        for number, path in enumerate(tested):
            noise = np.random.default_rng(number).integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(noise).save(data / path)
        out = tmp_path / f"run {name}"
        run = adapt(adapt_config(data=str(data), method=method, protocol="inductive", policy="partial:1", out=out))
        rows = list(csv.DictReader((out / "predictions.csv").open(newline="")))
        tested = [Path(row["path"]).relative_to(data) for row in rows]
        runs[name] = (
            (out / "model.safetensors").read_bytes(),
            run.result["selection"]["methods"],
            [{key: value for key, value in row.items() if key != "path"} for row in rows],
        )
    (model, scores, rows), (other_model, other_scores, other_rows) = runs.values()
    assert len(tested) == 12
    assert rows != other_rows
    assert other_scores == scores
    assert other_model == model


@pytest.mark.parametrize("policy", ["linear_probe", "partial:1"])
def test_adapt_sees_a_frozen_tensor_that_moved(adapt_config, tiny, monkeypatch, policy):
    move_a_frozen_tensor(monkeypatch)
    result = adapt(adapt_config(method=("mcc",), policy=policy), images=tiny).result
    assert result["policy"]["frozen_unchanged"] is False
    assert result["policy"]["moved"]


@pytest.mark.parametrize(
    "how",
    [
        {"policy": "linear_probe"},
        {"policy": "stage_probes"},
        {"policy": "partial:1", "average": "ema"},
        {"policy": "lp_ft:1", "heads": "separate"},
        {"policy": "full", "average": "swa", "heads": "joint"},
    ],
    ids=lambda how: "-".join(str(value) for value in how.values()),
)
def test_the_saved_model_is_the_one_that_was_measured(config, folder, tmp_path, how):
    """Its predictions are those of the run, calibrated probabilities included, and so is its accuracy."""
    run = train(config(out=tmp_path / "run", data=str(folder), **how))
    rows = list(csv.DictReader((tmp_path / "run" / "predictions.csv").open(newline="")))
    answers = list(predict(checkpoint.load_models(tmp_path / "run"), [row["path"] for row in rows]))
    for head in ("object", "domain"):
        assert [answer[head] for answer in answers] == [row[f"{head}_predicted"] for row in rows]
        ours = [answer[f"{head}_probability"] for answer in answers]
        np.testing.assert_allclose(ours, [float(row[f"{head}_probability"]) for row in rows], atol=2e-6)
        correct = np.mean([answer[head] == row[head] for answer, row in zip(answers, rows, strict=True)])
        assert correct == pytest.approx(run.result["test"][head]["accuracy"])


def list_files(folder):
    """Return the contents of every file below `folder` by its path."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


COMMANDS = {
    "train": "train {data} --backbone test_resnet --seeds 0,1 --out {out}/train",
    "train a phase": "train {data} --backbone test_resnet --policy partial:1 --epochs 2 --out {out}/phase",
    "nothing kept": "train {data} --backbone test_resnet --out none",
    "compare": "compare {data} --backbone test_resnet --policies linear_probe,norm_only --epochs 1 --out {out}/compare",
    "search": "search {data} --backbone test_resnet --trials 2 --epochs 1 --out {out}/search",
    "lr-find": "lr-find {data} --backbone test_resnet --out {out}/rate",
    "advise": "advise {data} --backbone test_resnet --out {out}/advice",
    "adapt": "adapt {data} --backbone test_resnet --source plain --target striped --method mcc --steps 2 --epochs 1"
    " --out {out}/adapt",
    "data": "data digits --data-root {out}",
    "predict": "predict {run} {image}",
    "evaluate": "evaluate {run} --data {data}",
    "report": "report {run}",
    "export": "export {run} --format safetensors --out {out}/model.safetensors",
    "backbones": "backbones glyph*",
}


@pytest.fixture(scope="module")
def store(tmp_path_factory, weights_store):
    """Weights whose images have another mean and deviation in each channel."""
    copy = shutil.copytree(weights_store, tmp_path_factory.mktemp("weights") / "store")
    for file in copy.glob("*.json"):
        levels = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3]}
        file.write_text(json.dumps(json.loads(file.read_text()) | levels))
    return copy


@pytest.fixture(scope="module")
def saved_run(tmp_path_factory, folder, store):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRANSFER_WEIGHTS", str(store))
        out = tmp_path_factory.mktemp("saved") / "run"
        assert main(["train", str(folder), "--backbone", "test_resnet", "--out", str(out)]) == 0
    return out


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_writes_in_its_out_folder_and_the_cache_alone(
    name, saved_run, folder, images, store, tmp_path, monkeypatch, capfd
):
    """The working folder, the home folder, the images and the run that is read stay as they are."""
    places = {place: tmp_path / place for place in ("work", "home", "temporary")}
    for place in places.values():
        place.mkdir()
    monkeypatch.setenv("TRANSFER_WEIGHTS", str(store))
    monkeypatch.setenv("HOME", str(places["home"]))
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path / "fonts"))  # matplotlib's own cache of fonts
    monkeypatch.setenv("TMPDIR", str(places["temporary"]))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.chdir(places["work"])
    places["data"] = folder
    if name != "report":
        places["run"] = saved_run
    before = {place: list_files(path) for place, path in places.items()}
    image = next(folder.rglob("*.png"))
    words = COMMANDS[name].format(data=folder, out=tmp_path / "out", run=saved_run, image=image)
    assert main(words.split()) == 0, capfd.readouterr().err
    assert {place: list_files(path) for place, path in places.items()} == before
    # Nor did a command before this one leave a file.
    assert set(before["data"]) == {str(Path(str(path)).relative_to(folder)) for path in images.paths}


def test_the_metadata_of_an_onnx_file_say_how_its_images_are_made(saved_run, folder, tmp_path):
    """An image resized, cropped and normalised by the record alone gets the features of the run's own reader."""
    runtime = pytest.importorskip("onnxruntime")
    file = tmp_path / "model.onnx"
    assert main(["export", str(saved_run), "--format", "onnx", "--out", str(file)]) == 0
    session = runtime.InferenceSession(file.read_bytes(), providers=["CPUExecutionProvider"])
    record = json.loads(session.get_modelmeta().custom_metadata_map["preprocessing"])
    models = checkpoint.load_models(saved_run)
    network = models[""].backbone.network.eval()
    path = next(folder.rglob("*.png"))
    pixels = np.asarray(Image.open(path).convert("RGB"), dtype=np.float32) / 255  # already of the input's size
    normalised = (pixels - np.array(record["mean"])) / np.array(record["std"])
    with torch.no_grad():
        features = network(torch.tensor(normalised.transpose(2, 0, 1)[None], dtype=torch.float32))
        logits = models[""].heads(features)["object"]
    (answer,) = predict(models, [str(path)])
    assert logits.softmax(1).max().item() == pytest.approx(answer["object_probability"], abs=1e-3)
