"""L2-SP: stay near the starting point."""

from torch import Tensor

from transfer.backbones.backbone import Backbone
from transfer.training.penalties.penalty import Penalty, PenaltyInputs


class L2SP(Penalty):
    """``strength / 2 * sum (w - w0)²`` over the backbone's parameters that learn, w0 being the pretrained ones (Li,
    Grandvalet and Davoine 2018, "Explicit inductive bias for transfer learning").

    The heads, which have no such start, keep their weight decay.
    """

    def __init__(self, start: Backbone, strength: float) -> None:
        self.strength = strength
        self.start = {name: p.detach() for name, p in start.network.named_parameters()}

    def __call__(self, step: PenaltyInputs) -> Tensor:
        """Return the term for a step."""
        total = step.features.new_zeros((), dtype=step.model.heads.centre.dtype)
        for name, p in step.model.backbone.network.named_parameters():
            if p.requires_grad:
                total = total + (p - self.start[name]).square().sum()
        return self.strength / 2 * total
