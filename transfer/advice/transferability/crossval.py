"""A linear probe cross-validated on frozen features: what each image is called by a probe that has not seen it.

The probe is the one of `probes.linear`, multinomial logistic regression on features scaled halfway to
standardisation, solved with less care: all folds at once, so that each pass over the features serves every fold, in
their principal components, in which curvature is near diagonal, and only until the accuracy stands. Centre, spread and
components are those of all rows, which takes nothing from the labels.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from tqdm import tqdm

from transfer.errors import TransferError
from transfer.heads.metrics import wilson_interval

STRONGEST, WEAKEST = -3, 5  # strengths are 10^-step; 0 is tried first
CURVATURE = 0.05  # of the loss in a row's outputs, on the whole: p (1 - p) is at most 1/4
TOLERANCE = 5e-3  # gradient at the solution, of that at zero
EVALUATIONS, ROUNDING = 100, 1e-9  # L-BFGS: at most for a strength; a smaller gain is none
WORK = 800_000_000  # components x rows x folds x classes: the last components are left out beyond that
HEAVY = 400_000  # rows x folds x classes; with more, one fold chooses the strength
NEAR = 1  # stronger strengths that the chosen one is then come to by, as by all folds choosing it
CONSTANT = 1e-6  # a feature that spreads less, relative to its mean, is constant but for rounding


@dataclass(frozen=True)
class CrossValidated:
    """What probes said of the images that they did not learn from.

    Parameters
    ----------
    predictions : ndarray of int64, shape (N,)
        Class index; -1 where the label is unknown, as such images are in no fold.
    probabilities : ndarray, shape (N, C)
        NaN where the label is unknown.
    folds : ndarray of int64, shape (N,)
    accuracy : float
    interval : (float, float)
        95 %, of :func:`transfer.heads.metrics.wilson_interval`.
    loss : float
        Mean negative log-likelihood, in nats.
    strength : float, optional
        Of regularisation, the same in every fold: the one of lowest loss. A pool has none.
    """

    predictions: np.ndarray
    probabilities: np.ndarray
    folds: np.ndarray
    accuracy: float
    interval: tuple[float, float]
    loss: float
    strength: float | None


def cross_validate(features: np.ndarray, labels: np.ndarray, folds: np.ndarray) -> CrossValidated:
    """Return what a linear probe learnt from the other folds says of each image.

    One number, the strength of regularisation, is chosen by the images that are then predicted (by a fold of them
    where there are very many, or many classes); they are too many for that to flatter.

    Parameters
    ----------
    features : ndarray, shape (N, D)
    labels : ndarray of int64, shape (N,)
        -1 where unknown.
    folds : ndarray of int64, shape (N,)
        See :func:`transfer.advice.transferability.folds.stratified_folds`; -1 for rows in none.

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
    x = np.asarray(features)[rows].astype(np.float32)
    bad = int((~np.isfinite(x).all(1)).sum())
    if bad:
        raise TransferError(f"the features of {bad} of {len(x)} images are NaN or infinite: the backbone does not suit")
    with tqdm(desc="cross-validating", unit="pass", disable=None, leave=False) as bar:
        parts, variances = _components(x)
        outputs = len(rows) * len(numbers) * len(classes)
        kept = slice(-max(WORK // outputs, 1), None)  # the smallest come first
        parts, variances = np.ascontiguousarray(parts[:, kept]), variances[kept]
        problem = _Problem(parts, variances, label, fold, bar)
        if outputs > HEAVY:
            first = _Problem(parts, variances, label, np.where(fold, -1, 0), bar)
            step, _ = first.choose()
            for near in range(step - NEAR, step + 1):  # not from that fold's weights: they have seen what is judged
                said = problem.at(near)
        else:
            step, said = problem.choose()
    probabilities = np.full((len(labels), int(labels.max()) + 1), np.nan)
    probabilities[rows] = 0.0
    probabilities[rows[:, None], classes] = said
    return judged(probabilities, labels, folds, _strength(step))


def judged(
    probabilities: np.ndarray, labels: np.ndarray, folds: np.ndarray, strength: float | None = None
) -> CrossValidated:
    """Return how good `probabilities` (N, C), NaN for rows in no fold, are."""
    rows = np.flatnonzero(~np.isnan(probabilities[:, 0]))
    said, label = probabilities[rows], labels[rows]
    predictions = np.full(len(labels), -1, np.int64)
    predictions[rows] = said.argmax(1)
    right = float((predictions[rows] == label).mean())
    loss = -float(np.log(np.maximum(said[np.arange(len(rows)), label], np.finfo(float).tiny)).mean())
    return CrossValidated(predictions, probabilities, folds, right, wilson_interval(right, len(rows)), loss, strength)


def _strength(step: int) -> float:
    return 10.0**-step


def _components(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the principal components (N, r) of scaled `x`, float32, and their variances (r,)."""
    centre = x.mean(0)
    x = x - centre
    spread = np.sqrt(np.square(x).mean(0))
    varies = spread > CONSTANT * np.abs(centre)
    x = x[:, varies] / np.sqrt(spread[varies] * spread.mean())
    n, width = x.shape
    squares, basis = np.linalg.eigh(x @ x.T if n <= width else x.T @ x)
    spans = squares > CONSTANT * squares.max(initial=0.0)
    squares, basis = squares[spans], basis[:, spans]
    parts = basis * np.sqrt(squares) if n <= width else x @ basis
    return np.ascontiguousarray(parts), squares / n


class _Problem:
    """The probes of all folds, side by side: weights (r + 1, F * C), the last row biases.

    Rows of fold -1 are learnt from in every fold, and never judged.
    """

    def __init__(
        self, parts: np.ndarray, variances: np.ndarray, label: np.ndarray, fold: np.ndarray, bar: tqdm
    ) -> None:
        self.parts, self.variances, self.label, self.fold, self.bar = parts, variances, label, fold, bar
        self.rows, self.judged = np.arange(len(label)), np.flatnonzero(fold >= 0)
        learns = fold[:, None] != np.arange(fold.max() + 1)
        self.share = (learns / learns.sum(0)).astype(np.float32)  # (N, F): of a fold's loss, a row's
        self.outputs = (len(label), int(fold.max()) + 1, int(label.max()) + 1)
        self.weights = np.zeros((len(variances) + 1, self.outputs[1] * self.outputs[2]))
        self.slope = self._loss_and_slope(self.weights)[1]

    def choose(self) -> tuple[int, np.ndarray]:
        """Return the step of lowest loss, and what is then said, (J, C), of the rows that are judged.

        Each solution starts the next: towards weaker strengths while that helps, or else towards stronger ones.
        """
        best, said = 0, self.at(0)
        least, kept = self.loss(said), self.weights
        for direction, end in ((1, WEAKEST), (-1, STRONGEST)):
            for step in range(direction, end + direction, direction):
                other = self.at(step)
                if not self.loss(other) < least:
                    break
                best, said, least, kept = step, other, self.loss(other), self.weights
            self.weights = kept
            if best:
                break
        return best, said

    def loss(self, said: np.ndarray) -> float:
        true = said[np.arange(len(said)), self.label[self.judged]]
        return -float(np.log(np.maximum(true, np.finfo(float).tiny)).mean())

    def at(self, step: int) -> np.ndarray:
        """Solve from the present weights on; return what the fold that has not seen a row says of it."""
        strength = _strength(step)
        # In these units the curvature of loss and penalty together is near one all round.
        unit = np.append(1 / np.sqrt(CURVATURE * self.variances + strength), 1.0)[:, None]
        ridge = strength * np.square(unit)
        ridge[-1] = 0.0  # biases are free

        def objective(point: np.ndarray) -> tuple[float, np.ndarray]:
            inner = point.reshape(self.weights.shape)
            loss, slope = self._loss_and_slope(inner * unit)
            return loss + 0.5 * float((ridge * np.square(inner)).sum()), (slope * unit + ridge * inner).ravel()

        found = minimize(
            objective,
            (self.weights / unit).ravel(),
            jac=True,
            method="L-BFGS-B",
            options={
                "gtol": TOLERANCE * float(np.abs(self.slope * unit).max()),
                "ftol": ROUNDING,
                "maxcor": 5,
                "maxfun": EVALUATIONS,
            },
        )
        self.weights = found.x.reshape(self.weights.shape) * unit
        own = self._out(self.weights)[self.judged, self.fold[self.judged]].astype(float)
        own = np.exp(own - own.max(1, keepdims=True))
        return own / own.sum(1, keepdims=True)

    def _out(self, weights: np.ndarray) -> np.ndarray:
        weights = weights.astype(np.float32)
        return (self.parts @ weights[:-1] + weights[-1]).reshape(self.outputs)

    def _loss_and_slope(self, weights: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the sum over folds of the mean cross-entropy of what each learns from, and its gradient."""
        self.bar.update()
        out = self._out(weights)
        out -= out.max(2, keepdims=True)
        true = out[self.rows, :, self.label].copy()
        np.exp(out, out=out)
        total = out.sum(2)
        loss = float((self.share * (np.log(total) - true)).sum(dtype=float))
        out *= (self.share / total)[:, :, None]
        out[self.rows, :, self.label] -= self.share
        flat = out.reshape(len(out), -1)
        return loss, np.concatenate([self.parts.T @ flat, flat.sum(0, keepdims=True)]).astype(float)
