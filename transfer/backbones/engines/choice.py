"""Which engine runs the frozen stages of a network: a rule of the network alone, so that it holds on every machine."""

import torch

from transfer.backbones.backbone import Backbone
from transfer.backbones.engines.compiled import describe_version
from transfer.errors import TransferError

# Below, a thousand images pass in less time than the export takes: `glyphnet` computes thousands a second.
LEAST_PIXELS = 96 * 96


def choose_engine(requested: str, backbone: Backbone, device: torch.device) -> str:
    """Return the engine for the frozen stages of `backbone`: ``torch``, ``onnxruntime`` or ``openvino``.

    ``auto`` takes ONNX Runtime, and torch for small images. OpenVINO is nowhere much faster:
    tests/benchmarks/trunk_engines.py measures each. On another `device` than a CPU it is torch.

    Raises
    ------
    TransferError
        The requested engine is not installed.

    Examples
    --------
    >>> from transfer.backbones import load
    >>> cpu = torch.device("cpu")
    >>> [choose_engine("auto", load(name, random_init=True), cpu) for name in ("resnet10t", "glyphnet")]
    ['onnxruntime', 'torch']
    """
    if device.type != "cpu" or requested == "torch":
        return "torch"
    if requested != "auto":
        if not describe_version(requested):
            raise TransferError(
                f"--engine {requested} needs a package: pip install {requested} (or leave the choice to --engine auto)"
            )
        return requested
    _, height, width = backbone.preprocessing.input_size
    return "torch" if height * width < LEAST_PIXELS else "onnxruntime"
