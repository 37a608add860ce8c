"""Residual blocks that are skipped at random in training (Huang et al. 2016)."""

from collections.abc import Iterator
from contextlib import contextmanager

from timm.layers import DropPath
from torch import nn

from transfer.backbones.backbone import Backbone
from transfer.freeze import Phase

PLACES = ("drop_path", "drop_path1", "drop_path2", "stochastic_depth")
"""Attributes in timm and torchvision of the module, or None, that ends a residual branch."""


def branches(network: nn.Module) -> list[tuple[str, nn.Module, list[str]]]:
    """Return path, block and drop-path attributes of each residual block, the lowest first."""
    found = []
    for path, module in network.named_modules():
        empty = [p for p in PLACES if hasattr(module, p) and isinstance(getattr(module, p), nn.Module | None)]
        if empty and getattr(module, "has_skip", True) and getattr(module, "use_res_connect", True):
            found.append((path, module, empty))
    return found


def skippable(backbone: Backbone, phase: Phase) -> list[tuple[nn.Module, str, float]]:
    """Return each drop-path attribute of the blocks that are fully trained in `phase`.

    An entry has the block, the name of the attribute, and l / L for block l of the L blocks of the network.
    """
    every = branches(backbone.network)
    return [
        (block, place, number / len(every))
        for number, (path, block, places) in enumerate(every, 1)
        if phase.stages[backbone.stage_of(path)].train == "all"
        for place in places
    ]


@contextmanager
def stochastic_depth(backbone: Backbone, phase: Phase, rate: float) -> Iterator[None]:
    """Skip trained residual blocks at random in training, per image; restore the network on leaving.

    Block l of all L of the network is skipped with probability ``rate * l / L``; where it is not, its branch counts for
    ``1 / (1 - rate * l / L)``, so that in use, when none is skipped, each contributes what it did on average.
    """
    chosen = skippable(backbone, phase) if rate else []
    before = [getattr(block, place) for block, place, _ in chosen]
    try:
        for block, place, depth in chosen:
            setattr(block, place, DropPath(rate * depth).train(block.training))
        yield
    finally:
        for (block, place, _), module in zip(chosen, before, strict=True):
            delattr(block, place)  # else a None would stay among the modules, where it was not
            setattr(block, place, module)
