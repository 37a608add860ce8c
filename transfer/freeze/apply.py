"""A phase carried out on a backbone: what learns, what is held in eval mode, and the proof that the rest stayed."""

import hashlib
from typing import TYPE_CHECKING

from transfer.freeze.norms import is_norm, norm_tensors
from transfer.freeze.plan import Phase

if TYPE_CHECKING:
    from torch import nn

    from transfer.backbones.backbone import Backbone


def learning(backbone: "Backbone", phase: Phase) -> dict[str, "nn.Parameter"]:
    """Return the backbone parameters that learn in `phase`, by their names in ``backbone.network``."""
    norm = norm_tensors(backbone)
    chosen = {}
    for name, parameter in backbone.network.named_parameters():
        train = phase.stages[backbone.stage_of(name)].train
        if train == "all" or (train == "norm" and name in norm):
            chosen[name] = parameter
    return chosen


def frozen_tensors(backbone: "Backbone", phases: tuple[Phase, ...]) -> dict[str, str]:
    """Return a digest of every parameter and buffer that no phase of `phases` lets move, by name (law 1).

    Compare two of these with :func:`changed` to prove that training left the frozen parts alone.
    """
    norm = norm_tensors(backbone)
    may_move = {name for phase in phases for name in learning(backbone, phase)}
    for name, _ in backbone.network.named_buffers():
        if name in norm and any(p.stages[backbone.stage_of(name)].statistics == "learning" for p in phases):
            may_move.add(name)
    tensors = {**dict(backbone.network.named_parameters()), **dict(backbone.network.named_buffers())}
    return {
        name: hashlib.blake2b(tensor.detach().cpu().contiguous().numpy().tobytes(), digest_size=16).hexdigest()
        for name, tensor in tensors.items()
        if name not in may_move
    }


def changed(before: dict[str, str], after: dict[str, str]) -> tuple[str, ...]:
    """Return the names whose digests differ, or that only one side has."""
    return tuple(sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name)))


def held_in_eval(backbone: "Backbone", phase: Phase) -> tuple["nn.Module", ...]:
    """Return the modules that stay in eval mode in `phase` whatever ``.train()`` says."""
    held = []
    for name, module in backbone.network.named_modules():
        try:
            stage = phase.stages[backbone.stage_of(name)]
        except KeyError:  # a container that several stages share
            continue
        moves = stage.statistics == "learning" if is_norm(module) else stage.train == "all"
        if stage.frozen or not moves:
            held.append(module)
    return tuple(held)
