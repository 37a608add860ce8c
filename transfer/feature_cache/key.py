"""All that a kept activation depends on (law 4), as plain JSON; the image itself is its digest in the disk_cache."""

import hashlib
from dataclasses import asdict
from typing import Any

import torch

from transfer.backbones import trunk
from transfer.data.images.batches import DECODER, Augmentation
from transfer.model import Precision, TransferModel

VIEW_RULES = 1  # of how the draw of a kept view comes about


def about(
    model: TransferModel, cut: int, precision: Precision, view: int = 0, augmentation: Augmentation | None = None
) -> dict[str, Any]:
    """Return what an activation of `model` at `cut` depends on, but for the image.

    Parameters
    ----------
    view : int
        0 for the evaluation view, else the number of a view that is drawn under `augmentation`.
    """
    backbone = model.backbone
    drawn = {"number": view, "rules": VIEW_RULES, **asdict(augmentation)} if augmentation and view else None
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
        "computed": _computed(next(backbone.parameters()).device),
    }


def view_seed(digest: str, view: int) -> tuple[int, int, int]:
    """Return what the draw of a kept view is seeded by: image and number alone, whatever the table, row or run."""
    return VIEW_RULES, view, int(digest[:16], 16)


def fingerprint_weights(model: TransferModel, cut: int) -> str:
    """Return a sha256 over names, shapes and bytes of the first `cut` stages' parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in model.trunk_tensors(cut).items():
        digest.update(repr((name, tuple(tensor.shape), tensor.dtype)).encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _computed(device: torch.device) -> str:
    """Return with what the numbers came about: another build or processor rounds differently."""
    kind = torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
    return f"torch {torch.__version__}, {device.type}, {kind}, rules {trunk.TRUNK_VERSION}"
