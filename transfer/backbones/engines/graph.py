"""The frozen stages of a network as an ONNX graph of fixed shapes, for one image."""

import copy
import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from transfer.backbones.backbone import Backbone

OPSET = 17


class StagesModule(nn.Module):
    """The stages of a backbone from the cut `start` to `cut`, as one module."""

    def __init__(self, backbone: Backbone, cut: int, start: int) -> None:
        super().__init__()
        self.backbone, self.cut, self.start = backbone, cut, start

    def forward(self, x: Tensor) -> Tensor:
        """Return the activation at the cut."""
        return self.backbone.trunk(x, self.cut, self.start)


def export_stages(backbone: Backbone, cut: int, start: int, examples: Tensor) -> tuple[bytes, Tensor]:
    """Return the stages of `backbone` from the cut `start` to `cut` as ONNX, and their output for `examples`.

    The network is traced with the first example: it must compute the same whatever the values of an image. The exporter
    is the one of TorchScript, which takes about a second; that of torch.export takes ten times as long.

    Parameters
    ----------
    backbone : Backbone
        Left unchanged.
    cut, start : int
    examples : Tensor
        Normalised images (N, 3, H, W), or activations (N, ...) at `start`.

    Raises
    ------
    Exception
        Whatever the exporter raises for a network that it cannot export.
    """
    with torch.inference_mode(False), torch.no_grad(), _quiet():
        stages = StagesModule(copy.deepcopy(backbone).cpu().eval(), cut, start).eval()
        stages.requires_grad_(False)
        if original := stages.backbone.original_classifier:  # no submodule: its parameters are not among those
            original.requires_grad_(False)
        examples = examples.clone()
        expected = torch.cat([stages(example) for example in examples.split(1)])
        file = io.BytesIO()
        export: Any = torch.onnx.export  # its annotation lacks files in memory
        export(stages, (examples[:1],), file, dynamo=False, opset_version=OPSET, input_names=["x"], output_names=["y"])
        return file.getvalue(), expected


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter, which warns of its age and of shapes that tracing makes constants."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
