"""The backbone that a policy has learn: without its last stages, or with the features of every stage."""

from typing import TYPE_CHECKING

from transfer.errors import TransferError
from transfer.freeze.policy import FreezePolicy

if TYPE_CHECKING:
    from transfer.backbones.backbone import Backbone


def reshaped(backbone: "Backbone", policy: FreezePolicy) -> "Backbone":
    """Return what `policy` makes of `backbone`, whose network is taken over, not copied.

    Raises
    ------
    TransferError
        Not one stage would remain.
    """
    from transfer.backbones.variants import EveryStage, Truncated

    n = len(backbone.stages)
    if policy.dropped >= n:
        raise TransferError(
            f"policy {policy}: {backbone.name} has {n} stages ({', '.join(s.name for s in backbone.stages)}), of which "
            f"{n - 1} at most can be dropped"
        )
    if policy.dropped:
        return Truncated(backbone, policy.dropped).train(backbone.training)
    return EveryStage(backbone).train(backbone.training) if policy.every_stage else backbone
