"""A run's networks as one module that needs nothing around it: prepared pixels in, every head's answers out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from transfer.backbones.backbone import Backbone
from transfer.backbones.variants import TruncatedBackbone, pool_mean
from transfer.model import TransferModel
from transfer.runs.checkpoint import Models


class Portable(nn.Module):
    """From uint8 images (N, 3, H, W), resized and cropped, to what each head says of them; normalisation is inside.

    Activations at an inner cut are rounded as the run rounds them (law 4), so that both answer alike.

    Parameters
    ----------
    models : dict of str to TransferModel
        Taken over, not copied.
    """

    def __init__(self, models: Models) -> None:
        super().__init__()
        self.models = nn.ModuleList(models.values()).cpu().to(memory_format=torch.contiguous_format).eval()
        for model in models.values():
            if path := rounded_at(model):
                model.backbone.network.get_submodule(path).register_forward_hook(_in_half)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return by name ``HEAD_logits`` and ``HEAD_probabilities``, float32 (N, classes), of a softmax head; both
        (N,) of a binary one; ``HEAD_value`` (N,) of a regression head.
        """
        out: dict[str, Tensor] = {}
        for model in self.models:
            assert isinstance(model, TransferModel)
            heads, backbone = model.heads, model.backbone
            logits = heads(_features(backbone, backbone.preprocessing.normalise(images)))
            for name, answer in heads.predictions(logits).items():
                if heads.specs[name].head_kind.has_classes:
                    out |= {f"{name}_logits": logits[name].float(), f"{name}_probabilities": answer}
                else:
                    out[f"{name}_value"] = answer
        return out


def _features(backbone: Backbone, images: Tensor) -> Tensor:
    """Return pooled features (N, width) of normalised `images`, as :meth:`Backbone.forward` does.

    Truncated networks run to their end, where no exporter follows a leap out of the middle; what nobody reads of it,
    the exporter drops.
    """
    if not isinstance(backbone, TruncatedBackbone):
        return backbone(images)
    reached: list[Tensor] = []
    last = backbone.network.get_submodule(backbone.stages[-1].modules[-1])
    with last.register_forward_hook(lambda *call: reached.append(call[-1])):
        backbone.network(images)
    return pool_mean(reached[0])


def said(outputs: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Return of a portable model's `outputs` the probabilities, or the values, by head."""
    ends = ("_probabilities", "_value")
    return {
        name.removesuffix(end): output.numpy() for name, output in outputs.items() for end in ends if name.endswith(end)
    }


def rounded_at(model: TransferModel) -> str:
    """Return the path of the module whose output a run rounds to half precision, or an empty string."""
    stages = model.backbone.stages
    inner = 0 < model.cut < len(stages) and model.cut_precision == "float16"
    return stages[model.cut - 1].modules[-1] if inner else ""


def _in_half(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return output.clamp(-65504, 65504).half().float()


@dataclass(frozen=True)
class Ready:
    """A run in another format, not yet written.

    Parameters
    ----------
    write : callable
        Gets the path to write to; returns the files that it wrote.
    answers : dict of str to ndarray
        What the exported model says of the images that it was tried on: probabilities (N, classes) by head, (N,) of
        binary heads, values (N,) of regression heads. Empty where the format has no way to run by itself.
    """

    write: Callable[[Path], list[Path]]
    answers: dict[str, np.ndarray]
