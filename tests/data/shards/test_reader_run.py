"""Whole runs from shards: the same bits as from a folder, by ranges alone."""

import csv
import json
from pathlib import Path

import pytest

from transfer.data.shards import remote
from transfer.errors import TransferError


@pytest.fixture
def sets(images, shard, server, tmp_path, monkeypatch):
    """The tiny set as a folder, in shards, and in shards on a server."""
    monkeypatch.setattr(remote, "BACKOFF", 0.0)
    root = Path(images.paths[0]).parents[2]
    names = sorted(str(Path(path).relative_to(root)) for path in images.paths)
    for n in range(3):
        tar = shard({name: root / name for name in names[n * 16 : (n + 1) * 16]}, f"s-{n}.tar")
        server.files[f"/{tar.name}"] = tar.read_bytes()
    return {"folder": str(root), "local": f"{tmp_path}/s-{{0..2}}.tar", "url": f"{server.url}/s-{{0..2}}.tar"}


def run(data, out, policy="linear_probe"):
    from transfer import train
    from transfer.config.train import BackboneConfig, DataConfig, LearnConfig, PolicyConfig, RunConfig, TrainConfig

    return train(
        TrainConfig(
            DataConfig(data),
            BackboneConfig("test_resnet", random_init=True, image_size=32),
            policy=PolicyConfig(policy),
            learn=LearnConfig(epochs=2, batch_size=16, augment="crop" if policy == "full" else "none", device="cpu"),
            run=RunConfig(out, report=False),  # whose pictures would be read again
        )
    )


def outcome(folder):
    with (folder / "predictions.csv").open(newline="") as file:
        rows = [{k: v for k, v in row.items() if k != "path"} for row in csv.DictReader(file)]
    return (folder / "model.safetensors").read_bytes(), rows


def test_training_from_shards_is_training_from_a_folder(sets, server, tmp_path, monkeypatch):
    server.cut_after = [100, 5000]  # broken off on the way
    expected = None
    for kind, data in sets.items():
        monkeypatch.setenv("TRANSFER_CACHE", str(tmp_path / f"cache-{kind}"))
        run(data, tmp_path / kind, "full")
        expected = expected or outcome(tmp_path / kind)
        assert outcome(tmp_path / kind) == expected
    assert all(asked for _, asked in server.asked)  # never a whole file


@pytest.mark.parametrize("command", ["compare", "advise", "adapt"])
def test_other_commands_say_of_shards_what_they_say_of_a_folder(sets, tmp_path, command):
    from transfer.cli.main import main

    said = []
    for kind in ("folder", "url"):
        out = tmp_path / kind
        given = ["--data", sets[kind], "--backbone", "test_resnet", "--random-init", "--image-size", "32"]
        more = {
            "compare": ["--policies", "linear_probe,partial:1", "--epochs", "2", "--device", "cpu"],
            "advise": [],
            "adapt": ["--source", "plain", "--target", "striped", "--method", "coral", "--device", "cpu"],
        }
        assert main([command, *given, *more[command], "--out", str(out)]) == 0
        said.append(json.loads((out / ("advice.json" if command == "advise" else "result.json")).read_text()))
        said[-1] |= {policy: run["test"] for policy, run in said[-1].get("runs", {}).items()}
    told = {
        "compare": ("linear_probe", "partial:1", "paired"),
        "advise": ("size", "similarity", "probes"),
        "adapt": ("target", "selection"),
    }
    for part in told[command]:
        assert said[0][part] == said[1][part], part


def test_kept_features_need_no_image(sets, server, tmp_path, monkeypatch):
    monkeypatch.setenv("TRANSFER_CACHE", str(tmp_path / "cache-url"))
    first = run(sets["url"], tmp_path / "one")
    server.sent = 0
    again = run(sets["url"], tmp_path / "two")
    assert server.sent == 3  # are they the same still?
    assert again.result["test"] == first.result["test"]


def test_a_run_on_its_own_test_images_and_predictions(sets, tmp_path, capsys):
    from transfer.config.commands import EvaluateConfig, PredictConfig
    from transfer.evaluation.evaluate import evaluate
    from transfer.evaluation.predict import predict_command

    done = run(sets["url"], tmp_path / "run")
    result = evaluate(EvaluateConfig(tmp_path / "run"))
    assert result["test"]["object"]["accuracy"] == done.result["test"]["object"]["accuracy"]
    with (tmp_path / "run" / "predictions.csv").open(newline="") as file:
        address = next(csv.DictReader(file))["path"]
    assert address.startswith("http://")
    capsys.readouterr()
    assert predict_command(PredictConfig(tmp_path / "run", (sets["local"], address)))[1] == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == 48 + 1
    assert lines[-1]["path"] == address


def test_a_server_that_goes_away(sets, server, tmp_path):
    from transfer import load_table
    from transfer.data.images.batches import ImageBatches
    from transfer.data.images.preprocessing import Preprocessing

    as_it_is = Preprocessing((3, 32, 32), (0, 0, 0), (1, 1, 1), "bilinear", 1.0)
    table = load_table(sets["url"])
    server.status["/s-1.tar"] = 404
    with pytest.raises(TransferError, match=r"cannot read 'plain/red/0.png' of http://.*/s-1.tar: HTTP 404 Not Found"):
        list(ImageBatches(table.paths, as_it_is, batch_size=4))
