"""A plan applied to a backbone: its shape, what is trained, what stays in eval mode, proof that the rest is unchanged.

BatchNorm statistics are frozen here: :func:`find_frozen_modules` lists the modules that stay in eval mode, and
:meth:`transfer.model.TransferModel.train` keeps them there whatever ``.train()`` says.
"""

import hashlib
from typing import TYPE_CHECKING

from transfer.errors import TransferError
from transfer.freeze.norms import find_norm_tensors, is_norm
from transfer.freeze.phase import Phase
from transfer.freeze.policy import FreezePolicy

if TYPE_CHECKING:
    from torch import Tensor, nn

    from transfer.backbones.backbone import Backbone


def reshape_backbone(backbone: "Backbone", policy: FreezePolicy) -> "Backbone":
    """Return `backbone` without the stages that `policy` drops, or with the features of all stages if it needs them.

    The network is taken over, not copied.

    Raises
    ------
    TransferError
        No stage would remain.
    """
    from transfer.backbones.variants import AllStagesBackbone, TruncatedBackbone

    n = len(backbone.stages)
    if policy.dropped >= n:
        raise TransferError(
            f"policy {policy}: {backbone.name} has {n} stages ({', '.join(s.name for s in backbone.stages)}), of which "
            f"{n - 1} at most can be dropped"
        )
    if policy.dropped:
        return TruncatedBackbone(backbone, policy.dropped).train(backbone.training)
    return AllStagesBackbone(backbone).train(backbone.training) if policy.all_stages else backbone


def find_trained_parameters(backbone: "Backbone", phase: Phase) -> dict[str, "nn.Parameter"]:
    """Return the backbone parameters that are trained in `phase`, by their names in ``backbone.network``."""
    norm = find_norm_tensors(backbone)
    trained = {}
    for name, parameter in backbone.network.named_parameters():
        train = phase.stages[backbone.stage_of(name)].train
        if train == "all" or (train == "norm" and name in norm):
            trained[name] = parameter
    return trained


def find_frozen_modules(backbone: "Backbone", phase: Phase) -> tuple["nn.Module", ...]:
    """Return the modules that stay in eval mode in `phase`: no dropout, and BatchNorm statistics are not updated."""
    frozen = []
    for name, module in backbone.network.named_modules():
        try:
            stage = phase.stages[backbone.stage_of(name)]
        except KeyError:  # a container of several stages
            continue
        trained = stage.statistics == "learning" if is_norm(module) else stage.train == "all"
        if stage.frozen or not trained:
            frozen.append(module)
    return tuple(frozen)


def find_frozen_tensors(backbone: "Backbone", phases: tuple[Phase, ...]) -> dict[str, "Tensor"]:
    """Return every parameter and buffer that no phase of `phases` may change, by name."""
    norm = find_norm_tensors(backbone)
    may_change = {name for phase in phases for name in find_trained_parameters(backbone, phase)}
    for name, _ in backbone.network.named_buffers():
        if name in norm and any(p.stages[backbone.stage_of(name)].statistics == "learning" for p in phases):
            may_change.add(name)
    tensors = {**dict(backbone.network.named_parameters()), **dict(backbone.network.named_buffers())}
    return {name: tensor for name, tensor in tensors.items() if name not in may_change}


def hash_frozen_tensors(backbone: "Backbone", phases: tuple[Phase, ...]) -> dict[str, str]:
    """Return a digest of every parameter and buffer that no phase of `phases` may change, by name.

    Compare two results with :func:`find_changed_tensors` to prove that training left the frozen parts unchanged.
    """
    return {
        name: hashlib.blake2b(tensor.detach().cpu().contiguous().numpy().tobytes(), digest_size=16).hexdigest()
        for name, tensor in find_frozen_tensors(backbone, phases).items()
    }


def find_changed_tensors(before: dict[str, str], after: dict[str, str]) -> tuple[str, ...]:
    """Return the names whose digests differ, or that only one side has."""
    return tuple(sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name)))
