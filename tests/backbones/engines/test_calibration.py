"""Calibration: the same images whatever their order, ranges that travel as JSON, and one line where there is none."""

import json

import numpy as np
import pytest
import torch

from transfer.backbones.backbone import Backbone
from transfer.backbones.engines import calibration as module
from transfer.backbones.engines.activation_ranges import ActivationRanges
from transfer.backbones.engines.calibration import calibrate
from transfer.backbones.engines.choice import choose_engine
from transfer.backbones.engines.compiled import StagesKey, compile_stages
from transfer.backbones.engines.graph import export_stages
from transfer.backbones.engines.quantise import measure_ranges, simplify
from transfer.backbones.trunk import Trunk
from transfer.config.checked import from_dict
from transfer.data.images.batches import ImageBatches
from transfer.errors import TransferError

CPU = torch.device("cpu")


def read(backbone: Backbone, paths) -> torch.Tensor:
    return torch.cat([images for _, images in ImageBatches(paths, backbone.preprocessing)])


@pytest.fixture
def int8(small, own_cache, monkeypatch):
    """Build a backbone that runs on int8; nothing is calibrated yet."""
    monkeypatch.setattr(module, "_calibrations", {})

    def build(*arguments) -> Backbone:
        backbone = small(*arguments).eval()
        backbone.engine = "int8"
        return backbone

    return build


def test_the_sample_is_that_of_the_first_digests_whatever_the_order(int8, images, digests, monkeypatch):
    monkeypatch.setattr(module, "CALIBRATION_IMAGES", 5)
    first = int8()
    calibrate(first, images.paths, digests)
    chosen = sorted(range(len(digests)), key=lambda row: digests[row])[:5]
    pixels = read(first, images.paths[chosen])
    graph = simplify(export_stages(first, len(first.stages), 0, torch.randn(1, 3, 32, 32))[0])
    naive = measure_ranges(graph, [image.numpy() for image in first.preprocessing.normalise(pixels).split(1)])
    assert first.calibration == ActivationRanges(naive, 5)
    order = np.random.default_rng(0).permutation(len(digests))
    order = np.concatenate([order, order[:3]])  # duplicates count once
    monkeypatch.setattr(module, "_calibrations", {})  # as in another process
    again = int8()
    calibrate(again, images.paths[order], digests[order], workers=3)
    assert again.calibration == first.calibration
    assert again.calibration.digest == first.calibration.digest


def test_other_engines_are_not_calibrated(small, images, digests):
    backbone = small()
    calibrate(backbone, images.paths, digests)
    assert backbone.calibration is None


def test_a_calibration_survives_json(int8, images, digests):
    backbone = int8()
    calibrate(backbone, images.paths, digests)
    saved = json.loads(json.dumps(backbone.calibration.to_dict()))
    assert from_dict(ActivationRanges, saved) == backbone.calibration
    assert from_dict(ActivationRanges, saved).digest == backbone.calibration.digest


def test_features_are_nearly_those_of_float32_and_batches_change_nothing(int8, images, digests):
    backbone = int8("mobilenetv3_small_050", 64)
    calibrate(backbone, images.paths, digests)
    cut, pixels = len(backbone.stages), read(backbone, images.paths[:8])
    trunk = Trunk(backbone, cut)
    found = trunk(pixels)
    assert trunk._compiled[(3, 64, 64)]
    assert torch.equal(torch.cat([trunk(part) for part in pixels.split([1, 2, 5])]), found)
    backbone.engine = "torch"
    expected = Trunk(backbone, cut)(pixels)
    error = float((found - expected).norm() / expected.norm())
    assert 1e-4 < error < 0.5


def test_stages_of_two_calibrations_are_two_files(int8, images, digests):
    backbone, keys = int8(), []
    for rows in (slice(0, 8), slice(8, 16)):
        calibrate(backbone, images.paths[rows], digests[rows])
        keys.append(StagesKey.of(backbone, "int8", len(backbone.stages), 0, (3, 32, 32)))
        assert compile_stages(backbone, keys[-1])
    assert keys[0].file != keys[1].file
    float32 = StagesKey.of(backbone, "onnxruntime", len(backbone.stages), 0, (3, 32, 32))
    assert not float32.calibration
    assert keys[0].versions[0] == float32.versions[0]


def test_a_calibration_that_does_not_fit_leaves_the_trunk_to_torch_and_says_so(int8, images, digests, caplog):
    backbone = int8()
    calibrate(backbone, images.paths, digests)
    backbone.calibration = ActivationRanges(dict(list(backbone.calibration.ranges.items())[:9]), 1)
    with caplog.at_level("INFO"):
        assert not Trunk(backbone, len(backbone.stages))._find_compiled((3, 32, 32))
    assert "runs on torch, not on int8: its calibration does not fit: " in caplog.text


def test_what_int8_cannot_do_is_one_line(int8, images, digests, monkeypatch):
    backbone = int8()
    with pytest.raises(TransferError, match="--engine int8 needs a calibration"):
        choose_engine("int8", backbone, CPU)
    with pytest.raises(TransferError, match="--engine int8 runs on a CPU, not on cuda"):
        choose_engine("int8", backbone, torch.device("cuda"))
    with pytest.raises(TransferError, match="needs training images to calibrate on"):
        calibrate(backbone, images.paths[:0], digests[:0])
    monkeypatch.setattr(module, "MAX_INT8_ERROR", 1e-6)
    with pytest.raises(TransferError, match=r"--engine int8: test_resnet: its features would differ by \d+%"):
        calibrate(backbone, images.paths, digests)
    monkeypatch.setattr(module, "export_stages", lambda *a: 1 / 0)
    with pytest.raises(TransferError, match="test_resnet cannot be quantised: "):
        calibrate(backbone, images.paths, digests)
