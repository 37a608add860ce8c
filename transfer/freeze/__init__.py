"""What learns and what stays as it was: policies, the plans made of them, and the hold on what is frozen."""

from transfer.freeze.apply import changed, frozen_tensors, held_in_eval, learning
from transfer.freeze.norms import input_gradients, is_norm
from transfer.freeze.plan import FreezePlan, Phase, plan
from transfer.freeze.policy import POLICIES, FreezePolicy
from transfer.freeze.reshape import reshaped

__all__ = [
    "POLICIES",
    "FreezePlan",
    "FreezePolicy",
    "Phase",
    "changed",
    "frozen_tensors",
    "held_in_eval",
    "input_gradients",
    "is_norm",
    "learning",
    "plan",
    "reshaped",
]
