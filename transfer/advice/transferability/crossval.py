"""Cross-validate a linear probe on frozen features.

The probe is the one that training solves (:mod:`transfer.probes`): the same objective, feature scaling, L2 grid and
tolerances. All folds are solved at once, in principal components of the features, and only to the coarse tolerance.
Centre, scale and components are those of all rows; labels have no part in them.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from transfer.errors import TransferError
from transfer.heads.metrics import wilson_interval
from transfer.probes.cross_validation_problem import CrossValidationProblem, compute_cross_entropy
from transfer.probes.lbfgs import STRIDE_OF_FOLDS, compute_l2
from transfer.probes.scaling import Blocks, check_finite, compute_feature_scale

# Limits of the time that cross-validation takes: about 20 s on two cores.
MAX_PROBLEM_SIZE = 800_000_000  # components x rows x folds x classes; the smallest components beyond it are left out
MAX_SEARCH_SIZE = 400_000  # rows x folds x classes; above it one fold chooses the L2 value
MIN_RELATIVE_EIGENVALUE = 1e-6  # of the largest; smaller components are rounding


@dataclass(frozen=True)
class CrossValidation:
    """Predictions for each image by a probe that was not trained on it.

    Images of unknown label are in no fold: their prediction is -1 and their probabilities are NaN.
    """

    predictions: np.ndarray  # class indices, int64, (N,)
    probabilities: np.ndarray  # (N, C)
    folds: np.ndarray  # int64, (N,)
    accuracy: float
    interval: tuple[float, float]  # 95 %, of `wilson_interval`
    loss: float  # mean negative log-likelihood, in nats
    l2: float | None  # the same in every fold: the value of lowest loss; None for a mean of several probes


def cross_validate(features: np.ndarray, labels: np.ndarray, folds: np.ndarray, blocks: Blocks = ()) -> CrossValidation:
    """Return predictions for each image by a linear probe trained on the other folds.

    The L2 value is chosen by the images that are then predicted (by one fold of them where images or classes are very
    many). One number chosen by that many images biases the accuracy little.

    Parameters
    ----------
    features : ndarray, shape (N, D)
    labels : ndarray of int64, shape (N,)
        -1 where unknown.
    folds : ndarray of int64, shape (N,)
        See :func:`transfer.advice.transferability.folds.assign_folds`; -1 for rows in none.
    blocks : sequence of (slice, float)
        Columns of each stage's features and their share of the variance, as for Head2Toe.

    Raises
    ------
    TransferError
        Fewer than two classes or folds, or features that are NaN or infinite.

    Examples
    --------
    >>> labels = np.arange(20) % 2
    >>> cross_validate(labels[:, None] + np.linspace(0, 0.1, 20)[:, None], labels, np.arange(20) // 4).accuracy
    1.0
    """
    rows = np.flatnonzero((labels >= 0) & (folds >= 0))
    classes, label = np.unique(labels[rows], return_inverse=True)
    numbers, fold = np.unique(folds[rows], return_inverse=True)
    if len(classes) < 2 or len(numbers) < 2:
        raise TransferError(f"cross-validation of {len(classes)} classes in {len(numbers)} folds: it needs 2 of each")
    x = torch.from_numpy(np.asarray(features)[rows].astype(np.float32))
    check_finite(x, "cross-validated images")
    outputs = len(rows) * len(numbers) * len(classes)
    x, variances = _principal_components(x, blocks, max(MAX_PROBLEM_SIZE // outputs, 1))
    problem = CrossValidationProblem(x, variances, torch.from_numpy(label), torch.from_numpy(fold))
    if outputs > MAX_SEARCH_SIZE:
        first_fold = torch.from_numpy(np.where(fold, -1, 0))
        step = CrossValidationProblem(x, variances, torch.from_numpy(label), first_fold).choose_step()
        # Not from the first fold's solution, which was trained on the rows to predict, but along the path to its L2.
        for near in (step - STRIDE_OF_FOLDS, step):
            problem.minimise(compute_l2(near))
    else:
        step = problem.choose_step()
    probabilities = np.full((len(labels), int(labels.max()) + 1), np.nan)
    probabilities[rows] = 0.0
    probabilities[rows[:, None], classes] = problem.predict_held_out()
    return score_held_out(probabilities, labels, folds, compute_l2(step))


def score_held_out(
    probabilities: np.ndarray, labels: np.ndarray, folds: np.ndarray, l2: float | None = None
) -> CrossValidation:
    """Return accuracy and loss of `probabilities` (N, C), NaN for rows in no fold."""
    rows = np.flatnonzero(~np.isnan(probabilities[:, 0]))
    predictions = np.full(len(labels), -1, np.int64)
    predictions[rows] = probabilities[rows].argmax(1)
    accuracy = float((predictions[rows] == labels[rows]).mean())
    interval, loss = wilson_interval(accuracy, len(rows)), compute_cross_entropy(probabilities[rows], labels[rows])
    return CrossValidation(predictions, probabilities, folds, accuracy, interval, loss, l2)


def _principal_components(x: Tensor, blocks: Blocks, count: int) -> tuple[Tensor, Tensor]:
    """Return the `count` largest principal components (N, r) of scaled `x`, smallest first, and their variances."""
    centre = x.mean(0)
    x = x - centre
    scale = compute_feature_scale(x, centre, blocks)
    x = (x * scale)[:, scale > 0]
    n, width = x.shape
    squares, basis = torch.linalg.eigh(x @ x.T if n <= width else x.T @ x)
    columns = torch.nonzero(squares > MIN_RELATIVE_EIGENVALUE * squares[-1:]).squeeze(1)[-count:]
    squares, basis = squares[columns], basis[:, columns]
    return (basis * squares.sqrt() if n <= width else x @ basis).contiguous(), squares / n
