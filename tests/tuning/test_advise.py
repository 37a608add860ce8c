import json
import shutil

import pytest

from transfer.config.commands import AdviseConfig
from transfer.errors import TransferError
from transfer.training.train import train
from transfer.tuning.advise import _select_available, advise


def test_advice_is_written_and_returned(config, tmp_path):
    result = advise(AdviseConfig(config(out=tmp_path / "a")))
    assert json.loads((tmp_path / "a" / "advice.json").read_text()) | {"run": None} == json.loads(json.dumps(result))
    assert result["run"] is None
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["advice.json", "config.json", "metrics.jsonl"]
    with pytest.raises(TransferError, match="already holds a run"):
        advise(AdviseConfig(config(out=tmp_path / "a")))
    advise(AdviseConfig(config(out=tmp_path / "a", overwrite=True)))


def test_run_trains_as_advised(config, tmp_path):
    result = advise(AdviseConfig(config(out=tmp_path / "a"), run=True))
    saved = json.loads((tmp_path / "a" / "run" / "result.json").read_text())
    assert result["run"]["policy"]["name"] == result["advice"]["best"]["policy"] == saved["policy"]["name"]
    assert (tmp_path / "a" / "run" / "model.safetensors").is_file()
    alone = train(config(policy=saved["policy"]["name"])).result
    assert alone["test"]["object"]["accuracy"] == result["run"]["test"]["object"]["accuracy"]


def test_backbones_are_ranked_and_the_best_is_advised(config, weights_store, monkeypatch, tmp_path):
    store = tmp_path / "store"
    shutil.copytree(weights_store, store)
    base = config(out=tmp_path / "a")
    monkeypatch.setenv("TRANSFER_WEIGHTS", str(store))
    result = advise(AdviseConfig(base, backbones=("test_resnet", "glyphnet", "resnet18"), run=True))
    assert {line["name"] for line in result["backbones"]} == {"test_resnet", "glyphnet"}
    best = max(result["backbones"], key=lambda line: line["linear_probe"])
    for line in result["backbones"]:
        assert line["behind"] == pytest.approx(best["linear_probe"] - line["linear_probe"])
        assert (line["error"] > 0) == (line is not best)
    assert result["backbone"]["name"] == result["backbones"][0]["name"] == result["run"]["backbone"]["name"]
    assert any("no stored weights for resnet18" in note for note in result["notes"])


def test_weights_of_an_installed_package_are_on_this_machine():
    available, notes = _select_available(("tf_efficientnet_lite0", "resnet18"))
    assert available == ("tf_efficientnet_lite0",)
    assert notes == ["no stored weights for resnet18: not ranked"]


def test_invalid_requests_are_refused(config):
    with pytest.raises(TransferError, match="no stored weights for resnet18"):
        advise(AdviseConfig(config(), backbones=("resnet18",)))
    with pytest.raises(TransferError, match=r"unknown backbone 'glyfnet'.*'glyphnet'"):
        advise(AdviseConfig(config(), backbones=("glyfnet",)))
    with pytest.raises(TransferError, match="leave --weights and --random-init out"):
        advise(AdviseConfig(config(random_init=True), backbones=("glyphnet",)))
    with pytest.raises(TransferError, match="--seeds"):
        advise(AdviseConfig(config(seeds=(0, 1))))
    with pytest.raises(TransferError, match="advise chooses the policy"):
        advise(AdviseConfig(config(policy="full")))


def test_advice_of_any_device(config, device):
    result = advise(AdviseConfig(config(device=device)))
    best = result["advice"]["best"]
    assert best["policy"]
    assert result["run"] is None
