"""The plain probe on the labelled images: it seeds label propagation, and propagation must beat it."""

from functools import cached_property, partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from transfer.advice.transferability.crossval import MAX_SEARCH_SIZE, MIN_RELATIVE_EIGENVALUE
from transfer.probes.cross_validation_problem import CrossValidationProblem
from transfer.probes.lbfgs import (
    DEFAULT_PROBE_L2,
    STRIDE_OF_FOLDS,
    LinearProblem,
    compute_l2,
    make_diagonal_preconditioner,
)
from transfer.probes.scaling import check_finite, compute_feature_scale

# Largest components in which held-out rows are predicted. On Office-31, a tenth of its labels replaced, all 1,280 take
# four times as long; neither the accuracy nor the wrong labels found differ by more than 0.6 points.
HELD_OUT_COMPONENTS = 256


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
        """Return the L2 value of lowest loss on the held-out rows; `folds` are as in :meth:`predict_held_out`."""
        return compute_l2(self._choose_step(*self._whole, torch.from_numpy(folds)))

    def predict_held_out(self, folds: np.ndarray) -> tuple[np.ndarray, float]:
        """Return class probabilities of all rows, float64 (N, classes), and the L2 value of the probes.

        `folds` (labelled rows,) are from 0, -1 for rows that train every probe. A row in a fold is predicted by the
        probe without it, any other by the mean of all probes. They are solved coarsely, in ``HELD_OUT_COMPONENTS``.
        """
        x, variances = self._project(HELD_OUT_COMPONENTS)
        numbers, count = torch.from_numpy(folds), int(folds.max()) + 1
        step = self._choose_step(x, variances, numbers)
        mean = np.zeros((len(x), self.classes))
        own = np.zeros((len(folds), self.classes))
        for fold in range(count):
            problem = self._cross_validate(x, variances, torch.where(numbers == fold, 0, -1))
            for near in (step - STRIDE_OF_FOLDS, step):
                problem.minimise(compute_l2(near))
            found = problem.predict(x).double().softmax(1).numpy()
            mean[:, : found.shape[1]] += found / count
            own[folds == fold, : found.shape[1]] = found[self.labelled[folds == fold]]
        mean[self.labelled[folds >= 0]] = own[folds >= 0]
        return mean, compute_l2(step)

    def _choose_step(self, x: Tensor, variances: Tensor, folds: Tensor) -> int:
        """Return the step of the L2 value of lowest held-out loss; of a large problem the first fold chooses it."""
        if len(folds) * (int(folds.max()) + 1) * self.classes > MAX_SEARCH_SIZE:
            folds = torch.where(folds == 0, 0, -1)
        return self._cross_validate(x, variances, folds).choose_step()

    def _cross_validate(self, x: Tensor, variances: Tensor, folds: Tensor) -> CrossValidationProblem:
        return CrossValidationProblem(x[self.labelled], variances, self.targets, folds)

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
