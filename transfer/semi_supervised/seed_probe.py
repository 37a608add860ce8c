"""The plain probe on the labelled images: it seeds label propagation, and propagation must beat it."""

from functools import cached_property, partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from transfer.advice.transferability.crossval import MIN_RELATIVE_EIGENVALUE
from transfer.probes.cross_validation_problem import CrossValidationProblem
from transfer.probes.lbfgs import DEFAULT_PROBE_L2, LinearProblem, compute_l2, make_diagonal_preconditioner
from transfer.probes.scaling import check_finite, compute_feature_scale

# Components x rows x folds x classes of cross-validation: 2 s on one core. The smallest components beyond it are left
# out.
MAX_FOLD_PROBLEM = 80_000_000


def scale_features(features: Tensor) -> Tensor:
    """Return `features` (N, width) centred and scaled as those of a probe; labels have no part in it.

    Raises
    ------
    TransferError
        Features are NaN or infinite.
    """
    check_finite(features, "training images")
    centre = features.mean(0)
    centred = features - centre
    return centred * compute_feature_scale(centred, centre)


class SeedProbe:
    """A linear probe on the labelled ones of `rows`, in the space that their features span.

    Parameters
    ----------
    x : Tensor, shape (N, width)
        Scaled features of all rows.
    labels : ndarray of int64, shape (N,)
        -1 where unknown.
    classes : int
    weights : ndarray, shape (N,), optional
        How much each labelled row counts in :meth:`predict` (default: 1).
    """

    def __init__(self, x: Tensor, labels: np.ndarray, classes: int, weights: np.ndarray | None = None) -> None:
        self.labelled = np.flatnonzero(labels >= 0)
        self.weights = (
            None if weights is None else torch.from_numpy(weights[self.labelled] / weights[self.labelled].sum())
        )
        self.classes, self.all = classes, x
        self.targets = torch.from_numpy(labels[self.labelled])

    def predict(self, l2: float = DEFAULT_PROBE_L2, used: np.ndarray | None = None) -> np.ndarray:
        """Return class probabilities of all rows, float64 (N, classes); `used` is a mask of the labelled ones."""
        x, variances = self._whole
        rows = slice(None) if used is None else torch.from_numpy(used)
        problem = LinearProblem(
            x[self.labelled][rows],
            self.classes,
            partial(self._loss, rows),
            make_diagonal_preconditioner(variances),
        )
        problem.minimise(l2, fine=True)
        return problem.predict(x).double().softmax(1).numpy()

    def choose_l2(self, folds: np.ndarray) -> float:
        """Return the L2 value of lowest loss on the held-out rows; `folds` are as in :meth:`predict_by_fold`."""
        x, variances = self._whole
        problem = CrossValidationProblem(x[self.labelled], variances, self.targets, torch.from_numpy(folds))
        return compute_l2(problem.choose_step())

    def predict_by_fold(self, folds: np.ndarray) -> tuple[np.ndarray, float]:
        """Return class probabilities of all rows, (folds, N, classes), each by a probe without that fold; and the L2.

        `folds` (labelled rows,) are from 0, -1 for rows that are never held out. The L2 value is that of lowest loss on
        the held-out rows. All folds are solved at once, coarsely, and in fewer components where the problem
        is large: that ranks labels, but of many classes the accuracy is too low.
        """
        outputs = len(self.labelled) * (int(folds.max()) + 1) * self.classes
        x, variances = self._project(max(MAX_FOLD_PROBLEM // outputs, 1))
        problem = CrossValidationProblem(x[self.labelled], variances, self.targets, torch.from_numpy(folds))
        l2 = compute_l2(problem.choose_step())
        logits = problem.predict(x).view(len(x), problem.shape[0], problem.shape[1]).double()
        found = np.zeros((problem.shape[0], len(x), self.classes))
        found[:, :, : problem.shape[1]] = logits.softmax(2).transpose(0, 1).numpy()
        return found, l2

    def _loss(self, rows: Tensor | slice, out: Tensor) -> Tensor:
        if self.weights is None:
            return F.cross_entropy(out, self.targets[rows])
        return F.cross_entropy(out, self.targets[rows], reduction="none") @ self.weights[rows].to(out.dtype)

    @cached_property
    def _whole(self) -> tuple[Tensor, Tensor]:
        return self._project(len(self.labelled))

    def _project(self, most: int) -> tuple[Tensor, Tensor]:
        """Return all rows on the `most` largest components of the labelled ones, (N, r), and their variances (r,)."""
        z = self.all[self.labelled]
        squares, vectors = torch.linalg.eigh(z @ z.T if len(z) <= z.shape[1] else z.T @ z)
        used = torch.nonzero(squares > MIN_RELATIVE_EIGENVALUE * squares[-1:]).squeeze(1)[-most:]
        squares, vectors = squares[used], vectors[:, used]
        basis = z.T @ (vectors / squares.sqrt()) if len(z) <= z.shape[1] else vectors
        return self.all @ basis, squares / len(z)
