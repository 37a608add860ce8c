"""Other features of a network: those of an earlier stage, those of all stages, and what stands behind them."""

from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from transfer.backbones.backbone import Backbone, Reached, leave
from transfer.backbones.onmap import OnMap
from transfer.errors import TransferError

FADING = 0.4  # see :func:`shares`


class TruncatedBackbone(Backbone):
    """The first stages of a backbone, pooled by their mean; what stood above is gone.

    Parameters
    ----------
    whole : Backbone
        Its network is taken over, not copied.
    drop : int
        How many stages from the top.

    Raises
    ------
    TransferError
        No stage would remain, or none would go.

    Examples
    --------
    >>> from transfer.backbones import load
    >>> short = TruncatedBackbone(load("resnet10t", random_init=True), 2)
    >>> short.width, [stage.name for stage in short.stages]
    (128, ['stem', 'layer1', 'layer2'])
    """

    def __init__(self, whole: Backbone, drop: int) -> None:
        keep = len(whole.stages) - drop
        if not 0 < keep < len(whole.stages):
            raise TransferError(
                f"{drop} of {len(whole.stages)} stages of {whole.name} cannot be dropped: between 1 and "
                f"{len(whole.stages) - 1} can"
            )
        for path in (path for stage in whole.stages[keep:] for path in stage.modules):
            parent, _, leaf = path.rpartition(".")
            setattr(whole.network.get_submodule(parent), leaf, nn.Identity())
        super().__init__(whole.name, whole.network, whole.preprocessing, whole.weights, parts=(whole.stages[:keep], 0))
        self.dropped = (*(stage.name for stage in whole.stages[keep:]), *whole.dropped)
        self.width = _one_image(self).shape[1]
        self._shapes = {keep: (self.width,)}

    @property
    def puts_out(self) -> str:
        """What :meth:`forward` returns, in words."""
        return f"pooled features of {self.stages[-1].name}"

    def forward(self, images: Tensor) -> Tensor:
        """Return pooled features (N, width) of normalised `images` (N, 3, H, W)."""
        last = self._last(len(self.stages))
        with last.register_forward_hook(leave):
            try:
                self.network(images)
            except Reached as reached:
                if reached.module is not last:  # a cut below
                    raise
                return pooled(reached.activation)
        raise RuntimeError(f"{self.name} never reached the end of stage {self.stages[-1].name}")


class AllStagesBackbone(Backbone):
    """A backbone whose features are those of all its stages, each pooled by its mean; of the last, its own.

    Parameters
    ----------
    whole : Backbone
        Its network is taken over, not copied.
    observed : bool
        Put out more than features: what each stage's last norm with running statistics is given, per channel the mean
        and the mean square over the image, and the original classifier's answers, if it is there.

    Attributes
    ----------
    layout : dict of str to slice
        Which columns are a stage's features, by its name, lowest first. Where observed, ``mean PATH`` and
        ``square PATH`` are a norm's, by its path in the network, and ``logits`` the classifier's.

    Examples
    --------
    >>> from transfer.backbones import load
    >>> AllStagesBackbone(load("resnet10t", random_init=True)).layout["layer2"]
    slice(128, 256, None)
    """

    def __init__(self, whole: Backbone, observed: bool = False) -> None:
        parts = whole.stages, whole.width
        super().__init__(whole.name, whole.network, whole.preprocessing, whole.weights, whole.original, parts)
        self.observed = observed
        self.norms: tuple[str, ...] = tuple(filter(None, map(self._norm, range(len(self.stages))))) if observed else ()
        self.layout: dict[str, slice] = {}
        self.width = 0
        self.width = _one_image(self).shape[1]
        self._shapes = {len(self.stages): (self.width,)}

    @property
    def blocks(self) -> list[tuple[slice, float]]:
        """The columns of each stage's features, lowest first, and their share of the variance: see :func:`shares`."""
        return list(zip([self.layout[s.name] for s in self.stages], shares(len(self.stages)), strict=True))

    @property
    def puts_out(self) -> str:
        """What :meth:`forward` returns, in words."""
        return "observations of every stage" if self.observed else "pooled features of every stage"

    def forward(self, images: Tensor) -> Tensor:
        """Return features (N, width) of normalised `images` (N, 3, H, W)."""
        seen: dict[str, Tensor] = {}

        def given(name: str, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            space = _space(inputs[0])
            seen[f"mean {name}"] = inputs[0].mean(space) if space else inputs[0]
            seen[f"square {name}"] = inputs[0].square().mean(space) if space else inputs[0].square()

        def made(name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            seen[name] = output

        with ExitStack() as hooks:
            for cut, stage in enumerate(self.stages, 1):
                hooks.enter_context(self._last(cut).register_forward_hook(partial(made, stage.name)))
            for path in self.norms:
                module = self.network.get_submodule(path)
                hooks.enter_context(module.register_forward_pre_hook(partial(given, path)))
            last = self._last(len(self.stages))
            hooks.enter_context(last.register_forward_pre_hook(lambda _, inputs: seen.update(map=inputs[0])))
            own = self.network(images)
        parts = {stage.name: pooled(seen[stage.name]) for stage in self.stages[:-1]}
        parts[self.stages[-1].name] = own
        parts |= {f"{what} {path}": seen[f"{what} {path}"] for what in ("mean", "square") for path in self.norms}
        if self.observed and self.original:
            # The last module of a network that classifies before it pools is the pooling (see :class:`OnMap`).
            parts["logits"] = self.original(seen["map"] if isinstance(self.original, OnMap) else own)
        if not self.width:
            for name, part in parts.items():
                start = sum(columns.stop - columns.start for columns in self.layout.values())
                self.layout[name] = slice(start, start + part.shape[1])
        return torch.cat(list(parts.values()), 1)

    def _norm(self, stage: int) -> str:
        """Return the path of the last module of `stage` that keeps running statistics, or an empty string."""
        found = ""
        for path, module in self.network.named_modules():
            if getattr(module, "running_var", None) is not None and self.stage_of(path) == stage:
                found = path
        return found


def shares(stages: int) -> tuple[float, ...]:
    """Return how much of all variance the features of each of so many stages are to have in a probe, lowest first.

    Each has ``FADING`` times that of the stage above it. With all alike, few labels drown in what lower stages see
    (Office-31 with three labels a class loses ten points); left as they are, the last stage, the widest of most
    networks, has nearly all the say.

    Examples
    --------
    >>> [round(share, 3) for share in shares(3)]
    [0.103, 0.256, 0.641]
    """
    each = [FADING**above for above in range(stages - 1, -1, -1)]
    return tuple(share / sum(each) for share in each)


def pooled(output: Any) -> Tensor:
    """Return the mean over places (N, channels) of what a stage puts out; of several tensors, side by side."""
    if isinstance(output, (tuple, list)):
        return torch.cat([pooled(part) for part in output], 1)
    space = _space(output)
    return output.mean(space) if space else output


def _space(output: Tensor) -> tuple[int, ...]:
    """Return the axes of `output` that are places, not channels: all but the second, or, channels last, the last."""
    if output.ndim == 4:
        _, a, b, c = output.shape
        return (1, 2) if a == b != c else (2, 3)
    return tuple(range(1, output.ndim - 1))


def _one_image(backbone: Backbone) -> Tensor:
    modes = [(module, module.training) for module in backbone.network.modules()]
    backbone.network.eval()
    try:
        with torch.no_grad():
            return backbone(torch.zeros(1, *backbone.preprocessing.input_size).to(next(backbone.parameters())))
    finally:
        for module, training in modes:
            module.training = training
