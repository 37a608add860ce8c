"""Which engine runs the frozen stages of a network: a rule of the network alone, so that it holds on every machine."""

import torch
from torch import nn

from transfer.backbones.backbone import Backbone

# Below, a thousand images pass in less time than the export takes: `glyphnet` computes thousands a second.
LEAST_PIXELS = 96 * 96


def choose_engine(requested: str, backbone: Backbone, device: torch.device) -> str:
    """Return the engine for the frozen stages of `backbone`: ``torch``, ``onnxruntime`` or ``openvino``.

    ``auto`` takes OpenVINO for networks with grouped or depthwise convolutions, ONNX Runtime for the others, and torch
    for small images: tests/benchmarks/trunk_engines.py measures each. On another `device` than a CPU it is torch.

    Examples
    --------
    >>> from transfer.backbones import load
    >>> cpu = torch.device("cpu")
    >>> [choose_engine("auto", load(name, random_init=True), cpu) for name in ("resnet10t", "mobilenetv2_035")]
    ['onnxruntime', 'openvino']
    """
    if device.type != "cpu" or requested == "torch":
        return "torch"
    if requested != "auto":
        return requested
    _, height, width = backbone.preprocessing.input_size
    if height * width < LEAST_PIXELS:
        return "torch"
    grouped = any(isinstance(module, nn.Conv2d) and module.groups > 1 for module in backbone.network.modules())
    return "openvino" if grouped else "onnxruntime"
