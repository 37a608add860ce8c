import pytest
import torch

from transfer.backbones.engines import choice
from transfer.backbones.engines.choice import LEAST_PIXELS, choose_engine
from transfer.errors import TransferError

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [
        ("resnet10t", 176, "onnxruntime"),
        ("mobilenetv2_035", 224, "onnxruntime"),
        ("torchvision:squeezenet1_1", 224, "onnxruntime"),
        ("glyphnet", 32, "torch"),
        ("resnet10t", 64, "torch"),
    ],
)
def test_auto_is_a_rule_of_the_network_and_its_images(small, name, size, expected):
    backbone = small(name, size)
    assert choose_engine("auto", backbone, CPU) == expected
    assert (size * size < LEAST_PIXELS) == (expected == "torch")


def test_an_engine_that_is_asked_for_is_taken_and_a_gpu_has_torch(small):
    for requested in ("torch", "onnxruntime", "openvino"):
        assert choose_engine(requested, small(), CPU) == requested
        assert choose_engine(requested, small(), torch.device("cuda")) == "torch"
    assert choose_engine("auto", small("resnet10t", 224), torch.device("mps")) == "torch"


def test_an_engine_that_is_asked_for_and_not_installed_is_refused(small, monkeypatch):
    monkeypatch.setattr(choice, "describe_version", lambda engine: "")
    with pytest.raises(TransferError, match=r"--engine openvino needs a package: pip install openvino"):
        choose_engine("openvino", small(), CPU)
    assert choose_engine("auto", small("resnet10t", 224), CPU) == "onnxruntime"  # torch runs what it cannot


def test_an_engine_that_a_gpu_does_not_have_is_logged_once(small, caplog):
    backbone = small()
    backbone.name = "one of a kind"
    with caplog.at_level("INFO"):
        for _ in range(2):
            choose_engine("onnxruntime", backbone, torch.device("cuda"))
            choose_engine("auto", backbone, torch.device("cuda"))
            choose_engine("torch", backbone, torch.device("cuda"))
    assert caplog.messages == ["one of a kind runs on torch, not on onnxruntime, which is for CPUs: the device is cuda"]
