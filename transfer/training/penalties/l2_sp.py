"""L2-SP: weights stay near the pretrained ones."""

from torch import Tensor

from transfer.backbones.backbone import Backbone
from transfer.training.penalties.penalty import Penalty, PenaltyInputs


class L2SP(Penalty):
    """``strength / 2 * sum (w - w0)²`` over the backbone's trained parameters, with pretrained values w0 (Li,
    Grandvalet and Davoine 2018, "Explicit inductive bias for transfer learning").

    The heads, which are not pretrained, have their weight decay.
    """

    def __init__(self, pretrained: Backbone, strength: float) -> None:
        self.strength = strength
        self.pretrained = {name: p.detach() for name, p in pretrained.network.named_parameters()}

    def __call__(self, step: PenaltyInputs) -> Tensor:
        """Return the term for a step."""
        total = step.features.new_zeros((), dtype=step.model.heads.centre.dtype)
        for name, p in step.model.backbone.network.named_parameters():
            if p.requires_grad:
                total = total + (p - self.pretrained[name]).square().sum()
        return self.strength / 2 * total
