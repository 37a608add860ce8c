"""Which engine runs the frozen stages of a network: a rule of the network alone, so that it holds on every machine."""

import logging
from functools import cache

import torch

from transfer.backbones.backbone import Backbone
from transfer.backbones.engines.compiled import ENGINES, describe_version
from transfer.backbones.engines.torch_compile import COMPILE
from transfer.errors import TransferError

log = logging.getLogger(__name__)

# Below, a thousand images pass in less time than the export takes: `glyphnet` computes thousands a second.
LEAST_PIXELS = 96 * 96


def choose_engine(requested: str, backbone: Backbone, device: torch.device) -> str:
    """Return the engine for the frozen stages of `backbone`, ``torch`` or another of those that can be requested.

    ``auto`` takes ONNX Runtime, and torch for small images. OpenVINO is nowhere much faster:
    tests/benchmarks/trunk_engines.py measures each. On another `device` than a CPU it is torch. ``compile``, which any
    device can run, and ``int8``, which changes the features, are never chosen unless they are requested.

    Raises
    ------
    TransferError
        The requested engine is not installed; or int8 is requested on another device, or without a calibration.

    Examples
    --------
    >>> from transfer.backbones import load
    >>> cpu = torch.device("cpu")
    >>> [choose_engine("auto", load(name, random_init=True), cpu) for name in ("resnet10t", "glyphnet")]
    ['onnxruntime', 'torch']
    """
    if requested == "int8":
        _check_int8(backbone, device)
    if device.type != "cpu" and requested in ENGINES:
        _log_torch(backbone.name, requested, device.type)
    if requested == COMPILE:
        return requested
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


def _check_int8(backbone: Backbone, device: torch.device) -> None:
    if device.type != "cpu":
        raise TransferError(
            f"--engine int8 runs on a CPU, not on {device.type}: add --device cpu, or name another --engine"
        )
    if backbone.calibration is None:
        raise TransferError(
            "--engine int8 needs a calibration, which transfer train and adapt measure on training images: train with "
            "--engine int8, or name another engine here"
        )


@cache  # once is enough
def _log_torch(name: str, requested: str, device: str) -> None:
    log.info("%s runs on torch, not on %s, which is for CPUs: the device is %s", name, requested, device)
