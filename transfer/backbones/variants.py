"""Backbones with other features: those of an earlier stage, or those of all stages."""

from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from transfer.backbones.backbone import Backbone, ConvClassifier
from transfer.backbones.stages import switch_to_eval
from transfer.errors import TransferError

VARIANCE_RATIO = 0.4  # of each stage's features to the next stage's in a probe; measured: see freeze/README.md


class TruncatedBackbone(Backbone):
    """The first stages of a backbone; its features are the spatial mean of the last of them.

    Parameters
    ----------
    whole : Backbone
        Its network is taken over, not copied.
    drop : int
        Number of stages to remove from the top.

    Raises
    ------
    TransferError
        No stage would remain, or none would be removed.

    Examples
    --------
    >>> from transfer.backbones import load
    >>> short = TruncatedBackbone(load("resnet10t", random_init=True), 2)
    >>> short.width, [stage.name for stage in short.stages]
    (128, ['stem', 'layer1', 'layer2'])
    """

    def __init__(self, whole: Backbone, drop: int) -> None:
        remaining = len(whole.stages) - drop
        if not 0 < remaining < len(whole.stages):
            raise TransferError(
                f"{drop} of {len(whole.stages)} stages of {whole.name} cannot be dropped: between 1 and "
                f"{len(whole.stages) - 1} can"
            )
        for path in (path for stage in whole.stages[remaining:] for path in stage.modules):
            parent, _, leaf = path.rpartition(".")
            setattr(whole.network.get_submodule(parent), leaf, nn.Identity())
        super().__init__(
            whole.name, whole.network, whole.preprocessing, whole.weights, layout=(whole.stages[:remaining], 0)
        )
        self.code_digest, self.licence = whole.code_digest, whole.licence
        self.engine, self.calibration = whole.engine, whole.calibration
        self.dropped = (*(stage.name for stage in whole.stages[remaining:]), *whole.dropped)
        self.output_kind = f"pooled features of {self.stages[-1].name}"
        self.width = _run_one_image(self).shape[1]
        self._shapes = {remaining: (self.width,)}

    def forward(self, images: Tensor) -> Tensor:
        """Return pooled features (N, width) of normalised `images` (N, 3, H, W)."""
        return pool_mean(self._run_until(len(self.stages), lambda: self.network(images)))


class AllStagesBackbone(Backbone):
    """A backbone with the features of all stages, each a spatial mean; the last stage's are the network's features.

    Parameters
    ----------
    whole : Backbone
        Its network is taken over, not copied.
    with_statistics : bool
        Append the input statistics of each stage's last norm with running statistics (each channel's mean and mean
        square over the image), and the logits of the original classifier, if there is one.

    Attributes
    ----------
    layout : dict of str to slice
        Columns of a stage's features, by its name, lowest first. With statistics, ``mean PATH`` and ``square PATH``
        are those of a norm, by its path in the network, and ``logits`` those of the classifier.

    Examples
    --------
    >>> from transfer.backbones import load
    >>> AllStagesBackbone(load("resnet10t", random_init=True)).layout["layer2"]
    slice(128, 256, None)
    """

    def __init__(self, whole: Backbone, with_statistics: bool = False) -> None:
        layout, classifier = (whole.stages, whole.width), whole.original_classifier
        super().__init__(whole.name, whole.network, whole.preprocessing, whole.weights, classifier, layout)
        self.code_digest, self.licence = whole.code_digest, whole.licence
        self.engine, self.calibration = whole.engine, whole.calibration
        self.output_kind = "observations of every stage" if with_statistics else "pooled features of every stage"
        self.with_statistics = with_statistics
        norms = filter(None, map(self._find_last_norm, range(len(self.stages)))) if with_statistics else ()
        self.norms: tuple[str, ...] = tuple(norms)
        self.layout: dict[str, slice] = {}
        self.width = 0
        self.width = _run_one_image(self).shape[1]
        self._shapes = {len(self.stages): (self.width,)}

    @property
    def blocks(self) -> list[tuple[slice, float]]:
        """Columns of each stage's features, lowest first, and their share of the variance (:func:`split_variance`)."""
        return list(zip((self.layout[s.name] for s in self.stages), split_variance(len(self.stages)), strict=True))

    def forward(self, images: Tensor) -> Tensor:
        """Return features (N, width) of normalised `images` (N, 3, H, W)."""
        outputs: dict[str, Tensor] = {}

        def record_input(name: str, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            axes = _find_spatial_axes(inputs[0])
            outputs[f"mean {name}"] = inputs[0].mean(axes) if axes else inputs[0]
            outputs[f"square {name}"] = inputs[0].square().mean(axes) if axes else inputs[0].square()

        def record_output(name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            outputs[name] = output

        with ExitStack() as hooks:
            for cut, stage in enumerate(self.stages, 1):
                hooks.enter_context(self._last(cut).register_forward_hook(partial(record_output, stage.name)))
            for path in self.norms:
                module = self.network.get_submodule(path)
                hooks.enter_context(module.register_forward_pre_hook(partial(record_input, path)))
            last = self._last(len(self.stages))
            hooks.enter_context(last.register_forward_pre_hook(lambda _, inputs: outputs.update(map=inputs[0])))
            last_features = self.network(images)
        parts = {stage.name: pool_mean(outputs[stage.name]) for stage in self.stages[:-1]}
        parts[self.stages[-1].name] = last_features
        parts |= {f"{what} {path}": outputs[f"{what} {path}"] for what in ("mean", "square") for path in self.norms}
        if self.with_statistics and (classifier := self.original_classifier):
            # The last module of a network that classifies before it pools is the pooling: its input is the map.
            parts["logits"] = classifier(outputs["map"] if isinstance(classifier, ConvClassifier) else last_features)
        if not self.width:
            for name, part in parts.items():
                start = sum(columns.stop - columns.start for columns in self.layout.values())
                self.layout[name] = slice(start, start + part.shape[1])
        return torch.cat(list(parts.values()), 1)

    def _find_last_norm(self, stage: int) -> str:
        """Return the path of the last module of `stage` with running statistics, or an empty string."""
        norms = (p for p, m in self.network.named_modules() if getattr(m, "running_var", None) is not None)
        return next((path for path in reversed([*norms]) if self.stage_of(path) == stage), "")


def split_variance(stages: int) -> tuple[float, ...]:
    """Return the share of the total variance that each stage's features get in a probe, lowest stage first.

    Each share is ``VARIANCE_RATIO`` times that of the stage above. Equal shares let lower stages add too much noise
    with few labels (ten points lost on Office-31 with three labels per class). Unscaled, the last stage, the widest of
    most networks, dominates.

    Examples
    --------
    >>> [round(share, 3) for share in split_variance(3)]
    [0.103, 0.256, 0.641]
    """
    each = [VARIANCE_RATIO**above for above in range(stages - 1, -1, -1)]
    return tuple(share / sum(each) for share in each)


def pool_mean(output: Any) -> Tensor:
    """Return the spatial mean (N, channels) of a stage's output; several tensors are concatenated."""
    if isinstance(output, (tuple, list)):
        return torch.cat([pool_mean(part) for part in output], 1)
    axes = _find_spatial_axes(output)
    return output.mean(axes) if axes else output


def _find_spatial_axes(output: Tensor) -> tuple[int, ...]:
    """Return the spatial axes of `output`: all but the second, or, channels last, the last."""
    if output.ndim == 4:
        _, a, b, c = output.shape
        return (1, 2) if a == b != c else (2, 3)
    return tuple(range(1, output.ndim - 1))


def _run_one_image(backbone: Backbone) -> Tensor:
    """Return the features of one black image, in eval mode."""
    with switch_to_eval(backbone.network), torch.no_grad():
        return backbone(torch.zeros(1, *backbone.preprocessing.input_size).to(next(backbone.parameters())))
