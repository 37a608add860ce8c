"""Estimates of how the target differs from the source, without target labels.

Class shares, label sets and the estimated accuracy come from a classifier of the source alone, on features standardised
per domain. The proxy A-distance needs features that are not standardised: on Office-31 it is then 1.8 to 2.0, but 0
after standardisation, which removes what a linear domain classifier uses.

Reliability on the six source-target pairs of Office-31 (frozen MobileNetV2, logistic regression; `python
recipes/class_shares.py --backbone mobilenetv2_100 --seeds 0,1,2`). The thresholds were set on such draws:

- the estimates agree (`reliable`) in all 108 cases;
- 31 or 21 classes shared by both domains: no flag in 36 cases;
- half the target's classes thinned to a tenth: strong shift found in 17 of 18, missed once in dslr to amazon; two
  thirds thinned: in 18 of 18;
- 10 of 31 classes left in the target: partial found in 18 of 18;
- 10 of 31 classes unknown to the source: open set found in 17 of 18, missed once in webcam to amazon; with 5 unknown
  classes, rarely. The shares of uncertain rows, or of rows far from every class, do not separate unknown classes from
  domain shift. The flag is a hint only: on the embedded digits, whose domains have the same ten classes, two of six
  pairs raise it;
- where a strong change of appearance alone makes shares look different, the estimates differ among themselves by 0.5 to
  0.8; under true label shift by 0.1 to 0.2 (the pairs of `recipes/appearance_battery.py` on which rules were set);
- the mean error of the estimated accuracy, with 31 classes in both, is 0.01 to 0.03 from amazon and between dslr and
  webcam, 0.05 and 0.10 to amazon, 0.21 at most; with 21 classes 0.02 to 0.19, 0.29 at most.

Weaker models are less reliable: with SqueezeNet, correct on half of the target, label shift was wrongly called strong
in 10 of 36 cases, and open sets were found in 10 of 18, before estimates also had to agree.
"""

import itertools
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
MIN_EXPECTED_ROWS = 5  # expected target rows of a class, from which it can be called absent
MIN_ROWS_PER_CLASS = 8  # mean rows per class, from which looseness is measured
MAX_SHIFT_ROWS = 4000  # rows per domain, where time grows with their square
MAX_DISAGREEMENT = 0.3  # mean distance between estimates of the class shares, up to which they are believed
STRONG_SHIFT = 0.16  # total variation of the class shares, beyond chance; must also be twice that of chance
ABSENT = 0.1  # a class is absent if its target share is below this fraction of its source share
MANY_ABSENT = 0.25  # fraction of absent classes from which the target is partial
LOOSE = 0.028  # difference of cosines from which the target is an open set
MIN_CLASS_SHARE = 1e-6  # floor of class shares, for their logarithms


@dataclass(frozen=True)
class LabelShift:
    """The estimates of :func:`measure_label_shift`; NaN where there are too few rows."""

    source_prior: tuple[float, ...]  # share of each class
    target_prior: tuple[float, ...]  # the same, estimated
    variation: float  # total variation distance in [0, 1] between the two, the target's by EM
    variation_bbse: float  # as a check, with the target's by BBSE
    chance: float  # expected distance between samples of these sizes from the same class shares
    disagreement: float  # mean distance between the estimates of the target's class shares: their error
    absent: tuple[int, ...]  # source classes with (almost) no target row
    looseness: float  # see measure_looseness
    estimated_accuracy: float  # see estimate_accuracy

    @property
    def reliable(self) -> bool:
        """Whether the estimates of the class shares agree enough to be believed."""
        return not self.disagreement > MAX_DISAGREEMENT

    @property
    def strong(self) -> bool:
        """Whether class shares differ strongly."""
        if not self.reliable:
            return False
        distances = [d for d in (self.variation, self.variation_bbse) if not math.isnan(d)]
        return float(np.mean(distances)) - self.chance >= max(STRONG_SHIFT, self.chance)

    def beyond_chance(self, shares: np.ndarray) -> float:
        """Return the total variation of class `shares` (K,) from the source's, less that of chance."""
        return _variation(shares, np.array(self.source_prior)) - self.chance

    @property
    def partial(self) -> bool:
        """Whether many source classes seem absent from the target."""
        return self.strong and len(self.absent) >= MANY_ABSENT * len(self.source_prior)

    @property
    def open_set(self) -> bool:
        """Whether the target seems to have classes that the source lacks."""
        return self.looseness >= LOOSE and self.reliable and not self.partial  # absent classes bias looseness

    def notes(self, classes: Sequence[str] = ()) -> list[str]:
        """Return a sentence for the user on each raised flag."""
        sentences = []
        if self.partial:
            names = [classes[k] if len(classes) else f"class {k}" for k in self.absent]
            listed = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
            sentences.append(
                f"The target seems to lack {len(names)} of the source's {len(self.source_prior)} classes ({listed}): "
                "methods that align whole domains or balance classes may hurt."
            )
        elif self.strong:
            sentences.append(
                f"Classes seem to be distributed differently in the target (total variation {self.variation:.2f}): "
                "methods that align whole domains or balance classes may hurt."
            )
        return sentences


def measure_label_shift(evidence: CandidateEvidence, *others: CandidateEvidence, seed: int = 0) -> LabelShift:
    """Return how the target differs from the source, from the evidence of a classifier of the source alone.

    Estimates of class shares take a change of appearance for one of shares if classifiers fail on the target. They
    then fail in different ways, so their error is measured as the distance between the estimates by EM and by BBSE
    from this classifier and from `others`, classifiers of the same rows on other features.
    """
    classes, rows = evidence.classes, len(evidence.target_logits)
    source = np.bincount(evidence.source_labels, minlength=classes) / len(evidence.source_labels)
    estimates = [_estimate_shares(each, source) for each in (evidence, *others)]
    target, *checks = estimates[0]
    pairs = itertools.combinations([shares for each in estimates for shares in each], 2)
    distances = [_variation(one, other) for one, other in pairs]
    spread = np.sqrt(source * (1 - source) * (1 / rows + 1 / len(evidence.source_labels)))
    absent = (target < ABSENT * source) & (source * rows >= MIN_EXPECTED_ROWS)
    return LabelShift(
        source_prior=tuple(source.tolist()),
        target_prior=tuple(target.tolist()),
        variation=_variation(target, source),
        variation_bbse=_variation(checks[0], source) if checks else math.nan,
        chance=float(spread.sum() / math.sqrt(2 * math.pi)),  # E|x| = sqrt(2 / pi) * spread for a normal x
        disagreement=float(np.mean(distances)) if distances else math.nan,
        absent=tuple(np.flatnonzero(absent).tolist()),
        looseness=measure_looseness(evidence, seed=seed),
        estimated_accuracy=estimate_accuracy(evidence.val_logits, evidence.val_labels, evidence.target_logits),
    )


def _estimate_shares(evidence: CandidateEvidence, source: np.ndarray) -> list[np.ndarray]:
    """Return the target's class shares (K,) by EM and, with held-out source rows, by BBSE."""
    shares = [estimate_target_prior(np.exp(calibrated_log_probabilities(evidence)), source)]
    if len(evidence.val_labels):
        shares.append(estimate_prior_bbse(evidence.val_logits, evidence.val_labels, evidence.target_logits))
    return shares


def proxy_a_distance(source: np.ndarray, target: np.ndarray, *, seed: int = 0) -> float:
    """Return 2 (1 - 2 e), e the held-out error of a linear classifier of the domain (Ben-David et al. 2007).

    In [0, 2]: 0 if it cannot separate the domains, 2 if it always can. The larger domain is subsampled to the size of
    the smaller. Rows are scaled to length 1 and projected on their leading principal components. NaN with fewer than
    five rows of a domain.
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
    predicted = cross_val_predict(LogisticRegression(max_iter=500), features, domain, cv=folds)
    return float(np.clip(2 * (1 - 2 * np.mean(predicted != domain)), 0, 2))


def fit_calibration(logits: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
    """Return scale and bias (K,) with which ``softmax(scale * logits + bias)`` is calibrated on held-out rows.

    Bias-corrected temperature scaling (Alexandari et al. 2020). Standard normal priors on the bias and on the logarithm
    of the scale keep them finite if every row is correct; without rows they are 1 and 0.
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
    """Return the maximum-likelihood class shares (K,) of the target, by EM (Saerens et al. 2002, eq. 2.9).

    `p` (Nt, K) are calibrated class probabilities of target rows under the source's class shares `source_prior` (K,).
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
    """Return calibrated target log-probabilities under the target's class shares (Saerens et al. 2002, eq. 2.4).

    Shape (Nt, K), up to a constant per row; the shares are from :func:`estimate_target_prior`.
    """
    source = np.bincount(evidence.source_labels, minlength=evidence.classes) / len(evidence.source_labels)
    log_p = calibrated_log_probabilities(evidence)
    target = estimate_target_prior(np.exp(log_p), source)
    return log_p + np.log(np.maximum(target, MIN_CLASS_SHARE) / np.maximum(source, MIN_CLASS_SHARE))


def estimate_prior_bbse(val_logits: np.ndarray, val_labels: np.ndarray, target_logits: np.ndarray) -> np.ndarray:
    """Return the target's class shares (K,) by black-box shift estimation (BBSE; Lipton et al. 2018).

    Solves C q = m for q >= 0, with C the confusion matrix of held-out source rows (columns: true classes), and m the
    predicted class shares of the target. A class without a held-out row counts as predicted correctly.
    """
    classes = target_logits.shape[1]
    counts = np.zeros((classes, classes))
    np.add.at(counts, (val_logits.argmax(1), val_labels), 1)
    counts[:, counts.sum(0) == 0] = np.eye(classes)[:, counts.sum(0) == 0]
    predicted = np.bincount(target_logits.argmax(1), minlength=classes) / len(target_logits)
    shares, _ = nnls(counts / counts.sum(0), predicted)
    return shares / shares.sum()


def measure_looseness(evidence: CandidateEvidence, *, seed: int = 0) -> float:
    """Return how much looser the classes are in the target than in the source, as a difference of cosines.

    A row's nearest neighbour is mostly of the same class, whether or not the source has that class. If it has, the row
    is also near the mean of its class. Rows of an unknown class have no such mean, and blur the means of the classes
    that are assigned to them. The gap of a domain is the mean similarity to the nearest neighbour less the mean
    similarity to the mean of the row's class (without the row). The result is the target's gap less the source's.
    Classes are initialised by the target's predictions and the source's labels, and updated by spherical k-means. NaN
    with fewer than eight rows per class.
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
        if len(features) < MIN_ROWS_PER_CLASS * evidence.classes:
            return math.nan
        drawn = _draw(len(features), min(len(features), MAX_SHIFT_ROWS), rng)
        gaps.append(_gap(unit_rows(features[drawn]), classes[drawn], evidence.classes))
    return gaps[0] - gaps[1]


def _gap(rows: np.ndarray, given: np.ndarray, classes: int, rounds: int = 10) -> float:
    """Return the mean cosine to the nearest neighbour less that to the mean of the class's other rows.

    `rows` (N, F) have length 1; `given` (N,) are their initial classes.
    """
    for _ in range(rounds):
        sums = np.eye(classes, dtype=rows.dtype)[given].T @ rows
        given = (rows @ unit_rows(sums).T).argmax(1)
    sums = np.eye(classes, dtype=rows.dtype)[given].T @ rows
    has_others = np.bincount(given, minlength=classes)[given] > 1
    to_class = (rows * unit_rows(sums[given] - rows)).sum(1)[has_others]
    to_rows = rows @ rows.T
    to_rows[to_rows > 1 - 1e-5] = -1.0  # the row itself and exact duplicates
    return float(to_rows.max(1).mean() - to_class.mean())


def estimate_accuracy(val_logits: np.ndarray, val_labels: np.ndarray, target_logits: np.ndarray) -> float:
    """Return the target's accuracy estimated from confidence: ATC (Garg et al. 2022, eq. 1 and 2).

    Confidence is the negative entropy of calibrated probabilities. The threshold is set so that the share of held-out
    source rows above it equals their accuracy; the estimate is the share of target rows above it. NaN without held-out
    rows.
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
