"""Heads that predict targets from pooled features: kinds of heads in a registry, their layers, losses and metrics."""

from transfer.heads import softmax, binary, regression  # noqa: F401, I001  (they register themselves, in this order)
from transfer.heads.multilabel import head  # noqa: F401
from transfer.heads.kind import ClassHeadKind, HeadKind
from transfer.heads.registry import find_head_kind, head_summaries, register_head
from transfer.heads.spec import HeadSpec

__all__ = ["ClassHeadKind", "HeadKind", "HeadSpec", "find_head_kind", "head_summaries", "register_head"]
