"""TransferModel: trunk (the frozen stages below the first trained one) + tail (the stages above) + heads."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from transfer import freeze
from transfer.backbones.backbone import Backbone
from transfer.freeze import Phase
from transfer.heads import Heads

CHUNK = {"cpu": 16}  # images that go through the trunk at a time; more do not go faster there


class TransferModel(nn.Module):
    """A backbone and its heads, with what is frozen held frozen.

    Images go through :meth:`trunk` once, their activations through :meth:`forward` as often as training wants.

    Parameters
    ----------
    backbone : Backbone
    heads : Heads
    cut : int
        How many stages the trunk has; :meth:`freeze` sets it.
    """

    def __init__(self, backbone: Backbone, heads: Heads, cut: int = 0) -> None:
        super().__init__()
        self.backbone = backbone.to(memory_format=torch.channels_last)
        self.heads = heads
        self.cut = cut
        self._held: tuple[nn.Module, ...] = ()

    def freeze(self, phase: Phase) -> None:
        """Let only what `phase` trains require gradients, hold the rest in eval mode, and cut below the first trained
        stage (or the nearest cut below it that this network allows).
        """
        learn = freeze.learning(self.backbone, phase)
        for name, parameter in self.backbone.network.named_parameters():
            parameter.requires_grad_(name in learn)
            parameter.grad = None
        self._held = freeze.held_in_eval(self.backbone, phase)
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

    @torch.no_grad()
    def trunk(self, images: Tensor) -> Tensor:
        """Return what the frozen trunk makes of `images`, uint8 (N, 3, H, W): what :meth:`forward` goes on from.

        Without a trunk these are the images themselves. Activations at an inner cut are rounded to float16, so that
        keeping them changes no result (law 4); pooled features stay float32.
        """
        if self.cut == 0:
            return images
        self._hold()
        size = CHUNK.get(images.device.type, 128)
        parts = []
        for some in images.split(size):
            # Always the same number of images, so that an image's activation never depends on the batch it is in.
            full = torch.cat([some, some[-1:].expand(size - len(some), -1, -1, -1)]) if len(some) < size else some
            activation = self.backbone.trunk(self._normalised(full), self.cut)[: len(some)]
            inner = self.cut < len(self.backbone.stages)
            parts.append(activation.clamp(-65504, 65504).half() if inner else activation.float())
        return torch.cat(parts)

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
        """Return each head's output from what :meth:`trunk` returned (see :meth:`transfer.heads.Heads.forward`)."""
        return self.heads(self.features(activation))

    def predict(self, images: Tensor) -> Mapping[str, Tensor]:
        """Return each head's answer for uint8 `images` (see :meth:`transfer.heads.Heads.answers`), in eval mode."""
        self.eval()
        with torch.inference_mode():
            return self.heads.answers(self(self.trunk(images)))

    def _normalised(self, images: Tensor) -> Tensor:
        return self.backbone.preprocessing.normalise(images).contiguous(memory_format=torch.channels_last)
