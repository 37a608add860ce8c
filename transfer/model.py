"""TransferModel: trunk (the frozen stages below the first trained one) + tail (the stages above) + heads."""

import itertools
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from transfer import freeze
from transfer.backbones.backbone import Backbone
from transfer.backbones.trunk import Trunk
from transfer.freeze import Phase
from transfer.heads.heads import Heads

Precision = Literal["float16", "float32"]


class TransferModel(nn.Module):
    """A backbone and its heads, with what is frozen held frozen.

    Images go through :meth:`trunk` once, their activations through :meth:`forward` as often as training wants.

    Parameters
    ----------
    backbone : Backbone
    heads : Heads
    cut : int
        How many stages the trunk has; :meth:`freeze` sets it.
    cut_precision : {"float16", "float32"}
        Of activations at an inner cut. Pooled features are float32.
    """

    def __init__(self, backbone: Backbone, heads: Heads, cut: int = 0, cut_precision: Precision = "float16") -> None:
        super().__init__()
        self.backbone = backbone.to(memory_format=torch.channels_last)
        self.heads = heads
        self.cut = cut
        self.cut_precision = cut_precision
        self._held: tuple[nn.Module, ...] = ()
        self._hooks: list[RemovableHandle] = []
        self._ready: tuple[tuple, Trunk] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is made ready to run on this machine's threads: it is made anew where it is missing."""
        return self.__dict__ | {"_ready": None}

    def freeze(self, phase: Phase) -> None:
        """Let only what `phase` trains require gradients, hold the rest in eval mode, and cut below the first trained
        stage (or the nearest cut below it that this network allows).
        """
        learn = freeze.find_trained_parameters(self.backbone, phase)
        for name, parameter in self.backbone.network.named_parameters():
            parameter.requires_grad_(name in learn)
            parameter.grad = None
        for hook in self._hooks:
            hook.remove()
        self._hooks = freeze.force_input_gradients(self.backbone.network)
        self._held = freeze.find_frozen_modules(self.backbone, phase)
        self.cut = next(k for k in range(phase.cut, -1, -1) if k == 0 or self.backbone.cuttable(k))
        self.train(self.training)

    def train(self, mode: bool = True) -> "TransferModel":
        """Set training mode, except for what the freeze plan holds in eval mode (law 1)."""
        super().train(mode)
        self._hold()
        return self

    def _hold(self) -> None:
        for module in self._held:
            if module.training:
                module.training = False

    def trunk(self, images: Tensor) -> Tensor:
        """Return what the frozen trunk makes of `images`, uint8 (N, 3, H, W): what :meth:`forward` goes on from.

        Without a trunk these are the images themselves.
        """
        self._hold()
        device = next(self.backbone.parameters()).device
        return self.rounded(self.ready_trunk()(images)) if self.cut else images.to(device, non_blocking=True)

    def ready_trunk(self) -> Trunk:
        """Return the trunk ready to run, made anew where its weights have changed since."""
        tensors = self.trunk_tensors()
        stamp = (self.cut, *((tensor.data_ptr(), tensor._version) for tensor in tensors.values()))
        if self._ready is None or self._ready[0] != stamp:
            self._ready = stamp, Trunk(self.backbone, self.cut)
        return self._ready[1]

    def trunk_tensors(self, cut: int | None = None) -> dict[str, Tensor]:
        """Return the parameters and buffers below `cut` (default: the model's own) by their names in the network."""
        cut = self.cut if cut is None else cut
        network, stage_of = self.backbone.network, self.backbone.stage_of
        tensors = itertools.chain(network.named_parameters(), network.named_buffers())
        return {name: tensor for name, tensor in tensors if stage_of(name) < cut}

    def rounded(self, activation: Tensor) -> Tensor:
        """Return the trunk's output in the precision that it has wherever it is kept, so that keeping it changes no
        result (law 4): `cut_precision` at an inner cut, float32 for pooled features.
        """
        if self.cut_precision == "float32" or self.cut == len(self.backbone.stages):
            return activation.float()
        return activation.clamp(-65504, 65504).half()

    def features(self, activation: Tensor) -> Tensor:
        """Return pooled features (N, width) from what :meth:`trunk` returned."""
        self._hold()
        if self.cut == 0:
            return self.backbone(self._normalised(activation))
        if self.cut == len(self.backbone.stages):
            return activation
        x = activation.float()
        return self.backbone.tail(x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x, self.cut)

    def forward(self, activation: Tensor) -> dict[str, Tensor]:
        """Return each head's output from what :meth:`trunk` returned (see `Heads.forward`)."""
        return self.heads(self.features(activation))

    def predict(self, images: Tensor) -> Mapping[str, Tensor]:
        """Return each head's answer for uint8 `images` (see `Heads.predictions`), in eval mode."""
        self.eval()
        with torch.inference_mode():
            return self.heads.predictions(self(self.trunk(images)))

    def _normalised(self, images: Tensor) -> Tensor:
        return self.backbone.preprocessing.normalise(images).contiguous(memory_format=torch.channels_last)
