"""The cache key of an activation: everything it depends on besides the image, as plain JSON."""

import platform
from dataclasses import asdict
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from transfer.backbones import trunk
from transfer.backbones.backbone import Backbone, hash_tensors
from transfer.backbones.engines import chunks
from transfer.backbones.engines.compiled import GRAPH_VERSION, describe_version
from transfer.backbones.engines.quantise import QUANTISATION_VERSION
from transfer.data.images.augment import Augmentation
from transfer.data.images.read import DECODER
from transfer.model import Precision, TransferModel

Stamp = list[tuple[str, Tensor, int, int]]
_fingerprints: WeakKeyDictionary[Backbone, tuple[Stamp, str]] = WeakKeyDictionary()

VIEW_VERSION = 1  # version of the sampling of cached views; part of the cache key


def describe_activation(
    model: TransferModel, cut: int, precision: Precision, view: int = 0, augmentation: Augmentation | None = None
) -> dict[str, Any]:
    """Return everything that an activation of `model` at `cut` depends on, except the image.

    Parameters
    ----------
    view : int
        0 for the evaluation view, else the number of a random view under `augmentation`.
    """
    backbone = model.backbone
    drawn = {"number": view, "rules": VIEW_VERSION, **asdict(augmentation)} if augmentation and view else None
    return {
        "backbone": backbone.name,
        "stage": backbone.stages[cut - 1].name if cut < len(backbone.stages) else backbone.output_kind,
        "cut": cut,
        "precision": precision if cut < len(backbone.stages) else "float32",
        "weights": fingerprint_weights(model, cut),
        **({"code": backbone.code_digest} if backbone.code_digest else {}),
        "preprocessing": backbone.preprocessing.to_dict(),
        "decoder": DECODER,
        "view": drawn,
        "computed": _computed(next(backbone.parameters()).device, model.engine),
        **_describe_calibration(model),
    }


def get_view_seed(digest: str, view: int) -> tuple[int, int, int]:
    """Return the random seed of a cached view, which depends only on the image and the number of the view."""
    return VIEW_VERSION, view, int(digest[:16], 16)


def fingerprint_weights(model: TransferModel, cut: int) -> str:
    """Return a sha256 over names, shapes, types and bytes of the first `cut` stages' parameters and buffers.

    The last one of a model is retained as long as none of these tensors is replaced or written to, which is also what
    decides whether its trunk is rebuilt.
    """
    tensors = model.trunk_tensors(cut)
    stamp = [(name, tensor, tensor.data_ptr(), tensor._version) for name, tensor in tensors.items()]
    found = _fingerprints.get(model.backbone)
    if found is None or not _is_same(found[0], stamp):
        found = _fingerprints[model.backbone] = stamp, hash_tensors(tensors.items())
    return found[1]


def _is_same(before: Stamp, now: Stamp) -> bool:
    # Tensors are compared by identity: those of `before` are alive, so that no other has their place.
    return len(before) == len(now) and all(
        a[0] == b[0] and a[1] is b[1] and a[2:] == b[2:] for a, b in zip(before, now, strict=True)
    )


def _describe_calibration(model: TransferModel) -> dict[str, str]:
    """Return what int8 depends on besides: two calibrations give two sets of features."""
    calibration = model.backbone.calibration
    if model.engine != "int8" or not calibration:
        return {}
    return {"calibration": f"{calibration.digest}, rules {QUANTISATION_VERSION}"}


def _describe_accelerator(device: torch.device) -> str:
    """Return the device, and what its rounding depends on: cuDNN, TensorFloat-32 and images per forward pass."""
    at_once = f"{chunks.DEFAULT_CHUNK_IMAGES} images at once"
    if device.type != "cuda":
        return f"{platform.machine()}, {at_once}"
    cudnn, products = torch.backends.cudnn, torch.backends.cuda.matmul
    if hasattr(cudnn, "conv"):  # from torch 2.9 on
        tf32 = cudnn.conv.fp32_precision, products.fp32_precision
    else:
        tf32 = cudnn.allow_tf32, products.allow_tf32
    return f"{torch.cuda.get_device_name(device)}, cuDNN {cudnn.version()}, {tf32}, {at_once}"


def _computed(device: torch.device, engine: str) -> str:
    """Return the engine, the torch build and the processor, as another one rounds differently."""
    kind = torch.backends.cpu.get_cpu_capability() if device.type == "cpu" else _describe_accelerator(device)
    version = f"{engine} {describe_version(engine)}, rules {GRAPH_VERSION}, " if engine != "torch" else ""
    return f"{version}torch {torch.__version__}, {device.type}, {kind}, rules {trunk.TRUNK_VERSION}"
