"""TransferModel: a trunk (frozen stages below the first trained one), a tail (the stages above) and heads."""

import itertools
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from transfer import freeze
from transfer.backbones.backbone import Backbone
from transfer.backbones.engines import StagesKey, choose_engine, is_compiled
from transfer.backbones.folding import FoldedTraining
from transfer.backbones.trunk import Trunk
from transfer.freeze import Phase
from transfer.heads.heads import Heads
from transfer.runtime.device import move_to

Precision = Literal["float16", "float32"]


class TransferModel(nn.Module):
    """A backbone and its heads, whose frozen parts stay in eval mode during training.

    :meth:`trunk` computes an image's activation once; :meth:`forward` then uses it in every epoch.

    Parameters
    ----------
    backbone : Backbone
    heads : Heads
    cut : int
        Number of stages in the trunk; :meth:`freeze` sets it.
    cut_precision : {"float16", "float32"}
        Precision of activations between trunk and tail. Pooled features are float32.
    """

    def __init__(self, backbone: Backbone, heads: Heads, cut: int = 0, cut_precision: Precision = "float16") -> None:
        super().__init__()
        self.backbone = backbone.to(memory_format=torch.channels_last)
        self.heads = heads
        self.cut = cut
        self.cut_precision = cut_precision
        self._frozen_modules: tuple[nn.Module, ...] = ()
        self._hooks: list[RemovableHandle] = []
        self._trunk: tuple[tuple, Trunk] | None = None
        self._stages_key: tuple[tuple, StagesKey] | None = None
        self._folded: FoldedTraining | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is prepared for this machine and rebuilt when needed."""
        return self.__dict__ | {"_trunk": None, "_stages_key": None, "_folded": None}

    def with_heads(self, heads: Heads) -> "TransferModel":
        """Return a model of the same backbone, frozen and cut alike, with other `heads`."""
        other = TransferModel(self.backbone, heads, self.cut, self.cut_precision)
        other._frozen_modules, other._trunk, other._stages_key = self._frozen_modules, self._trunk, self._stages_key
        return other.train(self.training)

    def freeze(self, phase: Phase) -> None:
        """Freeze all but what `phase` trains, and set the cut below the first trained stage.

        Frozen parameters require no gradient; frozen modules stay in eval mode. If the network cannot be cut there, the
        nearest possible cut below is used.
        """
        trained = freeze.find_trained_parameters(self.backbone, phase)
        for name, parameter in self.backbone.network.named_parameters():
            parameter.requires_grad_(name in trained)
            parameter.grad = None
        for hook in self._hooks:
            hook.remove()
        self._hooks = freeze.force_input_gradients(self.backbone.network)
        self._frozen_modules = freeze.find_frozen_modules(self.backbone, phase)
        self.cut = next(k for k in range(phase.cut, -1, -1) if k == 0 or self.backbone.can_cut(k))
        self._folded = None
        self.train(self.training)

    def train(self, mode: bool = True) -> "TransferModel":
        """Set training mode, except for frozen modules, which stay in eval mode."""
        super().train(mode)
        self._keep_frozen_in_eval()
        return self

    def _keep_frozen_in_eval(self) -> None:
        for module in self._frozen_modules:
            if module.training:
                module.training = False

    def trunk(self, images: Tensor) -> Tensor:
        """Return the trunk's activation of `images`, uint8 (N, 3, H, W), as :meth:`forward` takes it.

        Without a trunk this is the images themselves.
        """
        self._keep_frozen_in_eval()
        device = next(self.backbone.parameters()).device
        return self.round_activation(self.get_trunk()(images)) if self.cut else move_to(images, device)

    def get_trunk(self) -> Trunk:
        """Return the trunk prepared for inference, rebuilt if its weights have changed."""
        stamp = self._get_stamp()
        if self._trunk is None or self._trunk[0] != stamp:
            self._trunk = stamp, Trunk(self.backbone, self.cut)
        return self._trunk[1]

    def _get_stamp(self) -> tuple:
        """Return what changes whenever the trunk does."""
        versions = ((tensor.data_ptr(), tensor._version) for tensor in self.trunk_tensors().values())
        return (self.cut, self.backbone.engine, self.backbone.calibration, *versions)

    @property
    def engine(self) -> str:
        """What the trunk runs on: an engine, or ``torch`` where that fails; the first call compiles it."""
        backbone = self.backbone
        engine = choose_engine(backbone.engine, backbone, next(backbone.parameters()).device) if self.cut else "torch"
        if engine == "torch":
            return engine
        stamp = (engine, backbone.preprocessing.input_size, *self._get_stamp())
        if self._stages_key is None or self._stages_key[0] != stamp:
            key = StagesKey.of(backbone, engine, self.cut, 0, backbone.preprocessing.input_size)
            self._stages_key = stamp, key
        return engine if is_compiled(backbone, self._stages_key[1]) else "torch"

    def trunk_tensors(self, cut: int | None = None) -> dict[str, Tensor]:
        """Return the parameters and buffers below `cut` (default: the model's cut) by their names in the network."""
        cut = self.cut if cut is None else cut
        network, stage_of = self.backbone.network, self.backbone.stage_of
        tensors = itertools.chain(network.named_parameters(), network.named_buffers())
        return {name: tensor for name, tensor in tensors if stage_of(name) < cut}

    def round_activation(self, activation: Tensor) -> Tensor:
        """Round the trunk's output to the precision of the cache, so that caching changes no result.

        That is `cut_precision` between trunk and tail, and float32 for pooled features.
        """
        if self.cut_precision == "float32" or self.cut == len(self.backbone.stages):
            return activation.float()
        return activation.clamp(-65504, 65504).half()  # the range of float16

    def features(self, activation: Tensor) -> Tensor:
        """Return pooled features (N, width) of the output of :meth:`trunk`."""
        self._keep_frozen_in_eval()
        if self.cut == len(self.backbone.stages):
            return activation
        x = activation.float() if self.cut else self.backbone.preprocessing.normalise(activation)
        x = x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x
        with self._fold_norms(x):
            return self.backbone.tail(x, self.cut)

    def _fold_norms(self, x: Tensor) -> AbstractContextManager[None]:
        """Return a context in which frozen norms of the tail are folded, in a training step on a CPU."""
        if not (self.training and torch.is_grad_enabled() and x.device.type == "cpu"):
            return nullcontext()
        self._folded = self._folded or FoldedTraining(self.backbone, self.cut)
        return self._folded.applied()

    def forward(self, activation: Tensor) -> dict[str, Tensor]:
        """Return each head's output from the output of :meth:`trunk` (see `Heads.forward`)."""
        return self.heads(self.features(activation))

    def compute(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return pooled features (N, width) and each head's output (see `Heads.forward`) of uint8 `images`."""
        self.eval()
        with torch.inference_mode():
            features = self.features(self.trunk(images))
            return features, self.heads(features)

    def predict(self, images: Tensor) -> Mapping[str, Tensor]:
        """Return each head's prediction for uint8 `images` (see `Heads.predictions`), in eval mode."""
        with torch.inference_mode():
            return self.heads.predictions(self.compute(images)[1])
