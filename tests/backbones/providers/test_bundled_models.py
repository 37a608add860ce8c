import json

import pytest
import torch

from transfer.backbones import load, weight_paths
from transfer.backbones.providers import bundled_models as module
from transfer.errors import TransferError

provider = module.BundledModels()

RECORD = {
    "input_size": [3, 64, 64],
    "mean": [0.5] * 3,
    "std": [0.5] * 3,
    "interpolation": "bilinear",
    "crop_pct": 1.0,
    "num_classes": 52,
    "provider": "bundled",
    "arch": {"layers": [1, 1, 1, 1], "channels": [8, 16, 24, 32], "stem_width": 8, "in_chans": 3},
    "note": "not ImageNet-pretrained",
}


@pytest.fixture
def record(tmp_path, monkeypatch):
    file = tmp_path / "glyphnet.json"
    file.write_text(json.dumps(RECORD))
    monkeypatch.setattr(module, "RECORD", file)
    return file


def test_it_is_built_from_its_record(record):
    assert provider.names() == ("glyphnet",)
    network = provider.build("glyphnet").eval()
    assert network(torch.zeros(1, 3, 64, 64)).shape == (1, 32)
    assert provider.preprocessing("glyphnet").input_size == (3, 64, 64)


def test_a_missing_bundle_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "RECORD", tmp_path / "glyphnet.json")
    assert provider.names() == ()
    for use in (provider.build, provider.preprocessing, provider.download):
        with pytest.raises(TransferError, match="the bundled backbone is missing"):
            use("glyphnet")


def test_the_one_that_is_bundled(monkeypatch):
    if weight_paths.find_bundled_file("glyphnet") is None:
        pytest.skip("glyphnet's weights are not in this checkout")
    monkeypatch.delenv("TRANSFER_WEIGHTS", raising=False)
    backbone = load("glyphnet")
    assert backbone.weights == "bundle"
    assert [stage.name for stage in backbone.stages] == ["stem", "layer1", "layer2", "layer3", "layer4"]
    assert sum(p.numel() for p in backbone.parameters()) < 1_000_000
    assert weight_paths.find_bundled_file("glyphnet").stat().st_size < 2_000_000
    assert all(p.dtype == torch.float32 for p in backbone.parameters())
    assert all(backbone.can_cut(cut) for cut in range(6))
