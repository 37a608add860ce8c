"""What is trained and what is frozen: policies, the plans made of them, and how a plan is applied to a backbone."""

from transfer.freeze import policies  # noqa: F401  (registers the policies of this package)
from transfer.freeze.apply import (
    find_changed_tensors,
    find_frozen_modules,
    find_frozen_tensors,
    find_trained_parameters,
    hash_frozen_tensors,
    reshape_backbone,
)
from transfer.freeze.norms import (
    choose_batch_size,
    count_least_rows,
    force_input_gradients,
    is_norm,
    refuse_single_values,
)
from transfer.freeze.phase import Phase, PhaseBuilder
from transfer.freeze.plan import FreezePlan, plan
from transfer.freeze.policy import POLICIES, FreezePolicy, register_policy, summarise_policies

__all__ = [
    "POLICIES",
    "FreezePlan",
    "FreezePolicy",
    "Phase",
    "PhaseBuilder",
    "choose_batch_size",
    "count_least_rows",
    "find_changed_tensors",
    "find_frozen_modules",
    "find_frozen_tensors",
    "find_trained_parameters",
    "force_input_gradients",
    "hash_frozen_tensors",
    "is_norm",
    "plan",
    "refuse_single_values",
    "register_policy",
    "reshape_backbone",
    "summarise_policies",
]
