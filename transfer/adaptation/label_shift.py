"""How a target differs from its source, as far as that shows without target labels.

Class shares, label sets and the estimated accuracy are read off a model of the source alone, on features standardised
per domain. The A-distance is asked for apart, as it wants other features: standardised, every pair's is 0, since what a
linear classifier sees of a domain is gone; as they are, 1.8 to 2.0.

How reliable it is, on the six pairs of Office-31 (frozen MobileNetV2, logistic regression, ten draws of each; six of
them served to set the thresholds; of the other four alone: 0 of 48, 20, 22 and 22 of 24):

- 31 or 21 classes shared by both domains: no alarm in 120 cases;
- half the target's classes thinned to a tenth: strong shift seen in 53 of 60, least in dslr to amazon (6 of 10);
- 10 of 31 classes left in the target: partial seen in 57 of 60;
- 10 of 31 classes unknown to the source: open set seen in 55 of 60, least in webcam to amazon (6 of 10); of 5 unknown
  classes, few. Shares of unsure rows, or of rows far from every class, do not tell unknown classes from mere shift. A
  hint, no more: on the embedded digits, all of whose domains hold the same ten, two of six pairs raise it;
- the estimated accuracy is off by 0.01 to 0.03 from amazon and between dslr and webcam, 0.07 to 0.10 to amazon, 0.21 at
  worst.

The weaker the model, the less of this holds: of SqueezeNet, right on half of the target, label shift is wrongly called
strong in 10 of 36 cases, and open sets are seen in 10 of 18.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize, nnls
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from transfer.adaptation.selection.evidence import CandidateEvidence, entropy, log_softmax, unit_rows
from transfer.adaptation.selection.importance_weights import reduce_dimensions

DOMAIN_CLASSIFIER_FOLDS = 5
EXPECTED, COMPANY = 5, 8  # rows a class should have, for its absence to mean something, and for its looseness
MAX_SHIFT_ROWS = 4000  # of a domain, in what grows with the square of rows
STRONG_SHIFT = 0.16  # total variation of the class priors, beyond chance; at least as much again as chance
ABSENT, MANY_ABSENT = 0.1, 0.25  # of the share a class has in the source; of all classes
LOOSE = 0.028  # cosine
MIN_CLASS_SHARE = 1e-6  # share of a class, where its logarithm is taken


@dataclass(frozen=True)
class LabelShift:
    """What :func:`measure_label_shift` found; NaN where there was too little to go by.

    Parameters
    ----------
    source_prior, target_prior : tuple of float
        Share of each class; the target's is an estimate.
    variation, variation_bbse : float
        Total variation distance in [0, 1] between the two, the target's by EM and, as a check, by BBSE.
    chance : float
        The distance to expect of drawing that few rows from the same priors.
    absent : tuple of int
        Classes of the source that (almost) no target row belongs to.
    looseness : float
        How much looser the target's classes are than the source's, for how near its nearest neighbours are.
    estimated_accuracy : float
        See :func:`estimate_accuracy`.
    """

    source_prior: tuple[float, ...]
    target_prior: tuple[float, ...]
    variation: float
    variation_bbse: float
    chance: float
    absent: tuple[int, ...]
    looseness: float
    estimated_accuracy: float

    @property
    def strong(self) -> bool:
        """Whether classes are distributed very differently in the target."""
        distances = [d for d in (self.variation, self.variation_bbse) if not math.isnan(d)]
        return float(np.mean(distances)) - self.chance >= max(STRONG_SHIFT, self.chance)

    def beyond_chance(self, shares: np.ndarray) -> float:
        """Return how much further than by chance `shares` (K,) of the classes are from the source's, in variation."""
        return _variation(shares, np.array(self.source_prior)) - self.chance

    @property
    def partial(self) -> bool:
        """Whether many classes of the source seem to be missing from the target."""
        return self.strong and len(self.absent) >= MANY_ABSENT * len(self.source_prior)

    @property
    def open_set(self) -> bool:
        """Whether the target seems to hold classes that the source does not know."""
        return self.looseness >= LOOSE and not self.partial  # with classes missing, what is there is split among them

    def notes(self, classes: Sequence[str] = ()) -> list[str]:
        """Return what should be said to a user, a sentence each; nothing where nothing stands out."""
        said = []
        if self.partial:
            names = [classes[k] if len(classes) else f"class {k}" for k in self.absent]
            listed = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
            said.append(
                f"The target seems to lack {len(names)} of the source's {len(self.source_prior)} classes ({listed}): "
                "methods that align whole domains or balance classes may hurt."
            )
        elif self.strong:
            said.append(
                f"Classes seem to be distributed differently in the target (total variation {self.variation:.2f}): "
                "methods that align whole domains or balance classes may hurt."
            )
        if self.open_set:
            said.append(
                "The target may hold classes that the source does not know; its images of them get a wrong class."
            )
        return said


def measure_label_shift(evidence: CandidateEvidence, *, seed: int = 0) -> LabelShift:
    """Return how the target differs from the source, seen through a model that was learned on the source alone."""
    classes, rows = evidence.classes, len(evidence.target_logits)
    source = np.bincount(evidence.source_labels, minlength=classes) / len(evidence.source_labels)
    target = estimate_target_prior(np.exp(calibrated_log_probabilities(evidence)), source)
    checked = math.nan
    if len(evidence.val_labels):
        check = estimate_prior_bbse(evidence.val_logits, evidence.val_labels, evidence.target_logits)
        checked = _variation(check, source)
    spread = np.sqrt(source * (1 - source) * (1 / rows + 1 / len(evidence.source_labels)))
    absent = (target < ABSENT * source) & (source * rows >= EXPECTED)
    return LabelShift(
        source_prior=tuple(source.tolist()),
        target_prior=tuple(target.tolist()),
        variation=_variation(target, source),
        variation_bbse=checked,
        chance=float(spread.sum() / math.sqrt(2 * math.pi)),  # E|normal| is sqrt(2 / pi) of its spread
        absent=tuple(np.flatnonzero(absent).tolist()),
        looseness=measure_looseness(evidence, seed=seed),
        estimated_accuracy=estimate_accuracy(evidence.val_logits, evidence.val_labels, evidence.target_logits),
    )


def proxy_a_distance(source: np.ndarray, target: np.ndarray, *, seed: int = 0) -> float:
    """Return 2 (1 - 2 e), e the held-out error of a linear classifier of the domain (Ben-David et al. 2007).

    In [0, 2]: 0 where it cannot tell the domains apart, 2 where it always can.
    Both domains count the same: the larger is subsampled. Rows are scaled to length 1 and seen in their leading
    principal components. NaN with fewer than five rows of a domain.
    """
    rows = min(len(source), len(target), MAX_SHIFT_ROWS)
    if rows < DOMAIN_CLASSIFIER_FOLDS:
        return math.nan
    rng = np.random.default_rng(seed)
    features = np.concatenate(
        reduce_dimensions(*(unit_rows(part[_draw(len(part), rows, rng)]) for part in (source, target)), seed=seed)
    )
    domain = np.repeat([0, 1], rows)
    folds = StratifiedKFold(DOMAIN_CLASSIFIER_FOLDS, shuffle=True, random_state=seed)
    guessed = cross_val_predict(LogisticRegression(max_iter=500), features, domain, cv=folds)
    return float(np.clip(2 * (1 - 2 * np.mean(guessed != domain)), 0, 2))


def fit_calibration(logits: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
    """Return scale and bias (K,) with which ``softmax(scale * logits + bias)`` is calibrated on held-out rows.

    Bias-corrected temperature scaling (Alexandari et al. 2020). Standard normal priors on the bias and on the
    logarithm of the scale keep them finite where every row is right; without rows they are 1 and 0.
    """
    logits = logits.astype(np.float64)
    one_hot = np.eye(logits.shape[1])[labels]

    def posterior(x: np.ndarray) -> tuple[float, np.ndarray]:
        scale, bias = np.exp(x[0]), x[1:]
        log_p = log_softmax(scale * logits + bias) if len(logits) else logits
        slope = np.exp(log_p) - one_hot
        loss = 0.5 * x @ x - (one_hot * log_p).sum()
        return loss, x + np.concatenate([[scale * (slope * logits).sum()], slope.sum(0)])

    x = minimize(posterior, np.zeros(1 + logits.shape[1]), jac=True, method="L-BFGS-B").x
    return float(np.exp(x[0])), x[1:]


def estimate_target_prior(p: np.ndarray, source_prior: np.ndarray, *, rounds: int = 1000) -> np.ndarray:
    """Return the target's class shares (K,) of greatest likelihood, by EM (Saerens et al. 2002, eq. 2.9).

    Parameters
    ----------
    p : ndarray, shape (Nt, K)
        Calibrated class probabilities of target rows under the source's prior.
    source_prior : ndarray, shape (K,)
    """
    ratio = p / np.maximum(source_prior, 1e-12)
    prior = source_prior
    for _ in range(rounds):
        posterior = ratio * prior
        new = (posterior / np.maximum(posterior.sum(1, keepdims=True), 1e-300)).mean(0)
        if np.abs(new - prior).sum() < 1e-6:
            return new
        prior = new
    return prior


def calibrated_log_probabilities(evidence: CandidateEvidence) -> np.ndarray:
    """Return the target's log-probabilities (Nt, K), calibrated on the validation rows."""
    scale, bias = fit_calibration(evidence.val_logits, evidence.val_labels)
    return log_softmax(scale * evidence.target_logits + bias)


def prior_corrected_log_probabilities(evidence: CandidateEvidence) -> np.ndarray:
    """Return the target's log-probabilities, calibrated and under its own class shares (Saerens et al. 2002, eq. 2.4).

    Shape (Nt, K), up to a constant per row; the shares are :func:`estimate_target_prior`'s.
    """
    source = np.bincount(evidence.source_labels, minlength=evidence.classes) / len(evidence.source_labels)
    log_p = calibrated_log_probabilities(evidence)
    target = estimate_target_prior(np.exp(log_p), source)
    return log_p + np.log(np.maximum(target, MIN_CLASS_SHARE) / np.maximum(source, MIN_CLASS_SHARE))


def estimate_prior_bbse(val_logits: np.ndarray, val_labels: np.ndarray, target_logits: np.ndarray) -> np.ndarray:
    """Return the class shares (K,) that explain how often each class is predicted (BBSE; Lipton et al. 2018).

    Solves C q = m for q >= 0: C is how held-out source rows of each class are predicted, m how target rows are. A
    class without a held-out row is taken to be predicted right.
    """
    classes = target_logits.shape[1]
    counts = np.zeros((classes, classes))
    np.add.at(counts, (val_logits.argmax(1), val_labels), 1)
    counts[:, counts.sum(0) == 0] = np.eye(classes)[:, counts.sum(0) == 0]
    predicted = np.bincount(target_logits.argmax(1), minlength=classes) / len(target_logits)
    shares, _ = nnls(counts / counts.sum(0), predicted)
    return shares / shares.sum()


def measure_looseness(evidence: CandidateEvidence, *, seed: int = 0) -> float:
    """Return how much looser classes are in the target than in the source, as a difference of cosines.

    A row's nearest neighbour is mostly of its own class, whether or not the source knows that class. Where it does, the
    row is also near the mean of the rows that are given its class; rows of an unknown class have no such mean, and
    blur those that they are given to. So: mean similarity to the nearest neighbour less mean similarity to the mean of
    the row's class (without the row itself), in the target less in the source. Classes start from the target's
    predictions and the source's labels, and move by spherical k-means. NaN with fewer than eight rows a class.
    """
    rng = np.random.default_rng(seed)
    gaps = []
    for features, classes in (
        (evidence.target_features, evidence.target_logits.argmax(1)),
        (
            np.concatenate([evidence.source_features, evidence.val_features]),
            np.concatenate([evidence.source_labels, evidence.val_labels]),
        ),
    ):
        if len(features) < COMPANY * evidence.classes:
            return math.nan
        drawn = _draw(len(features), min(len(features), MAX_SHIFT_ROWS), rng)
        gaps.append(_gap(unit_rows(features[drawn]), classes[drawn], evidence.classes))
    return gaps[0] - gaps[1]


def _gap(rows: np.ndarray, given: np.ndarray, classes: int, rounds: int = 10) -> float:
    """Return mean cosine to the nearest neighbour less mean cosine to the rest of the class, of `rows` of length 1."""
    for _ in range(rounds):
        sums = np.eye(classes, dtype=rows.dtype)[given].T @ rows
        given = (rows @ unit_rows(sums).T).argmax(1)
    sums = np.eye(classes, dtype=rows.dtype)[given].T @ rows
    company = np.bincount(given, minlength=classes)[given] > 1
    own = (rows * unit_rows(sums[given] - rows)).sum(1)[company]
    near = rows @ rows.T
    near[near > 1 - 1e-5] = -1.0  # itself and its exact copies
    return float(near.max(1).mean() - own.mean())


def estimate_accuracy(val_logits: np.ndarray, val_labels: np.ndarray, target_logits: np.ndarray) -> float:
    """Return the target's accuracy as far as confidence tells: ATC (Garg et al. 2022, eq. 1 and 2).

    The share of target rows that are surer (in negative entropy, calibrated) than the threshold above which lies the
    accuracy's share of held-out source rows. NaN without held-out rows.
    """
    if not len(val_labels):
        return math.nan
    scale, bias = fit_calibration(val_logits, val_labels)
    known = scale * val_logits + bias
    threshold = np.quantile(-entropy(known), np.mean(known.argmax(1) != val_labels))
    return float(np.mean(-entropy(scale * target_logits + bias) >= threshold))


def _variation(p: np.ndarray, q: np.ndarray) -> float:
    return float(np.abs(p - q).sum() / 2)


def _draw(rows: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """Return `size` of `rows` row numbers, in order."""
    return np.sort(rng.permutation(rows)[:size])
