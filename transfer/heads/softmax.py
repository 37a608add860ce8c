"""The softmax head: one of several classes."""

from typing import Any

from transfer.heads.kind import ClassHeadKind
from transfer.heads.registry import register_head


@register_head
class SoftmaxHead(ClassHeadKind):
    """One of several classes: logits (N, classes), cross-entropy or multiclass hinge loss."""

    name = "softmax"
    summary = "one of several classes; the default for text"
    droppable_classes = True
    convex = True
    logits = True

    def losses(self, spec: Any, output: Any, target: Any, *, smoothing: float, loss: str) -> Any:
        """Return cross-entropy with label smoothing (Szegedy et al. 2016), or multiclass hinge losses."""
        from torch.nn import functional as F

        from transfer.heads.hinge import hinge_losses

        if loss == "hinge":
            return hinge_losses(output, target)
        return F.cross_entropy(output, target, label_smoothing=smoothing, reduction="none")

    def predictions(self, spec: Any, output: Any) -> Any:
        """Return probabilities (N, classes)."""
        return output.float().softmax(1)

    def correct_rows(self, output: Any, target: Any) -> Any:
        """Return where the largest logit is the target's."""
        return output.argmax(1) == target
