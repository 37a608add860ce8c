"""L1, L2, and both: the elastic net."""

from torch import Tensor

from transfer.training.penalties.penalty import Penalty, PenaltyInputs


class ElasticNet(Penalty):
    """``l1 * sum |w| + l2 / 2 * sum w²`` over all trained weights except biases and norms (Zou and Hastie 2005).

    With `l1` alone it is the lasso's penalty (Tibshirani 1996), whose gradient does not shrink with the weight, so that
    useless weights come within a step of zero. With `l2` alone it is ridge regression's penalty.
    """

    def __init__(self, l1: float, l2: float) -> None:
        self.l1, self.l2 = l1, l2

    def __call__(self, step: PenaltyInputs) -> Tensor:
        """Return the term for a step."""
        total = step.features.new_zeros((), dtype=step.model.heads.centre.dtype)
        for p in step.model.parameters():
            if p.requires_grad and p.ndim > 1:
                total = total + self.l1 * p.abs().sum() + self.l2 / 2 * p.square().sum()
        return total
