"""The convex problem of cross-validation: the probes of all folds, solved side by side on the same features.

One product with the features serves every fold. In principal components the curvature is nearly diagonal, so that the
preconditioner can follow each L2 value.
"""

import math

import numpy as np
import torch
from torch import Tensor

from transfer.probes.lbfgs import START_STEP_OF_FOLDS, STRIDE_OF_FOLDS, LinearProblem, make_diagonal_preconditioner


class CrossValidationProblem(LinearProblem):
    """Multinomial logistic regressions, one per fold, each on the rows of all other folds.

    The loss is the sum over folds of the mean cross-entropy of what each is trained on.

    Parameters
    ----------
    x : Tensor, shape (N, width)
        Principal components of scaled features, float32.
    variances : Tensor, shape (width,)
    labels, folds : Tensor of int64, shape (N,)
        Class index; fold. Rows of fold -1 train every fold and are never predicted.
    """

    def __init__(self, x: Tensor, variances: Tensor, labels: Tensor, folds: Tensor) -> None:
        self.labels, self.folds = labels, folds
        self.shape = (int(folds.max()) + 1, int(labels.max()) + 1, len(x))
        trains = folds != torch.arange(self.shape[0])[:, None]
        self.row_weights = (trains / trains.sum(1, keepdim=True)).float()  # (folds, N)
        self.held_out = (folds >= 0).nonzero().squeeze(1)
        outputs = self.shape[0] * self.shape[1]
        super().__init__(x, outputs, self._loss, make_diagonal_preconditioner(variances), "cross-validating")

    def choose_step(self) -> int:
        """Solve at the L2 value of lowest held-out loss, and return its step on the grid."""

        def solve(l2: float) -> float:
            if self.minimise(l2) == 1:
                return math.inf  # already within the tolerance: no better than at the last value
            return compute_cross_entropy(self.predict_held_out(), self.labels[self.held_out].numpy())

        return self.search_l2(solve, START_STEP_OF_FOLDS, STRIDE_OF_FOLDS)

    def predict_held_out(self) -> np.ndarray:
        """Return the probabilities (M, classes) of the rows in a fold, each by that fold's probe."""
        logits = self.predict(self.x).T.reshape(self.shape)
        own = logits[self.folds[self.held_out], :, self.held_out]
        return own.double().softmax(1).numpy()

    def _loss(self, out: Tensor) -> Tensor:
        logs = out.T.view(self.shape).log_softmax(1)
        own = logs.gather(1, self.labels.expand(self.shape[0], 1, -1)).squeeze(1)
        return -(own * self.row_weights).sum(dtype=torch.float64)  # float32 would end the line search early


def compute_cross_entropy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean negative log-likelihood of `labels` (N,) under `probabilities` (N, classes), in nats."""
    own = probabilities[np.arange(len(labels)), labels]
    return -float(np.log(np.maximum(own, np.finfo(float).tiny)).mean())
