import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from transfer.adaptation.adapt import adapt
from transfer.backbones import load, register_backbone, registry
from transfer.backbones.trunk import Trunk
from transfer.config.commands import ExportConfig
from transfer.errors import TransferError
from transfer.evaluation.predict import predict
from transfer.formats import export
from transfer.runs import checkpoint
from transfer.training.train import train

PAIR = "test_resnet+test_byobnet"
SHARED = Path(__file__).parents[4] / "shared" / "weights"


@pytest.fixture
def two_stored(config, small, weights_store, tmp_path, monkeypatch):
    """A store of two networks that differ in the size of their input and in how they normalise it."""
    store = tmp_path / "store"
    store.mkdir()
    other = small("test_byobnet", size=40, seed=1)
    record = replace(other.preprocessing, mean=(0.1, 0.2, 0.3), std=(0.3, 0.2, 0.1), interpolation="bicubic")
    for backbone, preprocessing in ((small(), small().preprocessing), (other, record)):
        save_file(backbone.network.state_dict(), store / f"{backbone.name}.safetensors")
        (store / f"{backbone.name}.json").write_text(json.dumps(preprocessing.to_dict()))
    monkeypatch.setenv("TRANSFER_WEIGHTS", str(store))
    return store


def images(side, count=3):
    return torch.randint(0, 256, (count, 3, side, side), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def check_features(pair, members, pixels):
    """Compare the features of `pair` with those of each network by itself, normalised by its own record."""
    with torch.no_grad():
        expected = []
        for member in members:
            mean, std = (
                torch.tensor(v).view(1, 3, 1, 1) for v in (member.preprocessing.mean, member.preprocessing.std)
            )
            features = member.network((pixels / 255 - mean) / std).double().numpy()
            expected.append(features / np.sqrt((features**2).mean(1, keepdims=True)))
        found = pair(pair.preprocessing.normalise(pixels)).numpy()
    np.testing.assert_allclose(found, np.concatenate(expected, 1), rtol=1e-3, atol=1e-3)


def test_features_are_those_of_each_network(two_stored):
    pair = load(PAIR)
    members = [load(name) for name in PAIR.split("+")]
    check_features(pair, members, images(40))
    assert pair.preprocessing == members[1].preprocessing  # of the larger input
    assert pair.width == sum(member.width for member in members)
    assert pair.licence == members[0].licence
    assert pair.weights == "; ".join(member.weights for member in members)


@pytest.mark.skipif(not SHARED.is_dir(), reason="no shared/weights beside the checkout")
def test_features_of_real_networks(monkeypatch):
    monkeypatch.setenv("TRANSFER_WEIGHTS", str(SHARED))
    names = ("tf_efficientnet_lite0", "mobilenetv2_100")
    pair, members = load("+".join(names)), [load(name) for name in names]
    check_features(pair, members, images(224))
    pair.engine = "auto"  # the compiled networks give the same
    compiled = Trunk(pair, 1)(images(224))
    plain = pair(pair.preprocessing.normalise(images(224))).detach()
    assert (compiled - plain).abs().max() < 1e-4 * plain.abs().max()


def test_the_image_size_is_that_of_all(two_stored):
    pair = load(PAIR, image_size=64)
    assert pair.preprocessing.input_size == (3, 64, 64)
    check_features(pair, [load(name, image_size=64) for name in PAIR.split("+")], images(64))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("test_resnet+test_byobnt", {}, "unknown backbone 'test_byobnt' (did you mean 'test_byobnet'"),
        ("test_resnet+test_resnet", {}, "names test_resnet twice"),
        ("test_resnet+", {}, "unknown backbone ''"),
        (PAIR, {"weights": Path("a.safetensors")}, "--weights is the file of one network"),
        (PAIR, {"classifier": True}, "no classifier reads the features of all"),
    ],
)
def test_what_cannot_be_joined(two_stored, name, options, message):
    with pytest.raises(TransferError) as error:
        load(name, **options)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_random_weights_need_no_store(monkeypatch):
    monkeypatch.delenv("TRANSFER_WEIGHTS", raising=False)
    assert load(PAIR, random_init=True, classifier="any").original_classifier is None


def test_the_code_of_a_registered_network_is_part_of_the_cache_key(monkeypatch):
    monkeypatch.setattr(registry, "BACKBONES", {})
    record = {
        "input_size": [3, 32, 32],
        "interpolation": "bilinear",
        "crop_pct": 1.0,
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
    }
    register_backbone("plugged_net", build_plugged, record)
    alone = load("plugged_net", random_init=True)
    pair, other = (load(name, random_init=True) for name in ("plugged_net+test_resnet", PAIR))
    assert alone.code_digest
    assert pair.code_digest not in ("", alone.code_digest)
    assert other.code_digest == ""
    assert not pair.training


def build_plugged():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


@pytest.mark.parametrize("policy", ["linear_probe", "partial:1", "head2toe"])
def test_a_saved_run_predicts_what_was_measured(two_stored, config, folder, tmp_path, policy):
    out = tmp_path / "run"
    result = train(config(data=str(folder), backbone=PAIR, policy=policy, epochs=1, out=out)).result
    models = checkpoint.load_models(out)
    assert models[""].backbone.weights == "store test_resnet.safetensors; store test_byobnet.safetensors"
    assert models[""].backbone.preprocessing.mean == (0.1, 0.2, 0.3)
    rows = [line.split(",") for line in (out / "predictions.csv").read_text().splitlines()[1:]]
    predicted = [row["object"] for row in predict(models, [row[0] for row in rows])]
    right = np.mean([answer == Path(row[0]).parent.name for answer, row in zip(predicted, rows, strict=True)])
    assert right == pytest.approx(result["test"]["object"]["accuracy"])


def test_it_is_exported(two_stored, config, folder, tmp_path):
    train(config(data=str(folder), backbone=PAIR, out=tmp_path / "run"))
    for format in ("onnx", "torch_export", "safetensors"):
        result = export(ExportConfig(tmp_path / "run", format=format))
        assert result.files[0].stat().st_size
        assert result.difference is None or result.difference < 1e-4  # of tensors alone nothing is computed
    with pytest.raises(TransferError, match="is not an architecture of timm"):
        export(ExportConfig(tmp_path / "run", format="timm"))


def test_adaptation_takes_several(two_stored, adapt_config, tiny, monkeypatch):
    monkeypatch.setenv("TRANSFER_WEIGHTS", str(two_stored))
    config = adapt_config(method=("standardise",))
    listed = adapt(
        replace(config, backbones=("test_resnet", "test_byobnet"), backbone=type(config.backbone)()), images=tiny
    )
    joined = adapt(replace(config, backbone=replace(config.backbone, backbone=PAIR)), images=tiny)
    assert listed.result["target"] == joined.result["target"]
    assert listed.result["config"]["backbone"]["backbone"] == PAIR
    with pytest.raises(TransferError, match="--backbones names the networks already"):
        adapt(replace(config, backbones=("test_resnet", "test_byobnet")), images=tiny)
