"""Whether adapted predictions are better than those of the source's classifier, compared without target labels.

No rule sees which of two predictions is correct, so what is adapted must earn its place: where both agree on nearly all
images there is little to gain, and otherwise one of two tests must favour the adapted predictions clearly. Each test
errs in another situation. A classifier that learns predictions on target images and is tested on the source's labels
(circular validation) recognises predictions that are mostly wrong, but favours those of the source's classifier, which
come from these labels. A classifier that learns what both agree on decides between them on the other images; it means
nothing where few predictions are correct.
Predictions that agree no more often than by chance are never taken: they do not refine what the source's classifier
knows, and clusters of the target then have arbitrary classes.
"""

import math
from dataclasses import dataclass

import numpy as np

from transfer.adaptation.selection.evidence import CandidateEvidence, unit_rows

NEAR = 0.9  # agreement from which nothing is to be gained: all losses of the development pairs are at 0.92 and above
MIN_CIRCULAR = 1.0  # standard errors of circular validation; at most 0 in losses of the development pairs
MIN_VOTES = 4.0  # standard errors of the votes; at most 3.1 in losses of the development pairs, which all agree
MIN_ABOVE_CHANCE = 4.0  # standard errors of the agreement; 0 in one development pair at chance, 6 or more in the others


@dataclass(frozen=True)
class SourceComparison:
    """Evidence for predictions `after` against predictions `before`; see :func:`compare_with_source`."""

    agreement: float  # share of equal predictions
    circular: float  # standard errors by which `after` is ahead in circular validation
    votes: float  # the same by the votes of a classifier that learns what both agree on
    above_chance: float = math.inf  # standard errors by which they agree more often than independent predictions

    @property
    def convincing(self) -> bool:
        """Whether `after` is to be preferred."""
        ahead = self.circular >= MIN_CIRCULAR or self.votes >= MIN_VOTES
        return self.agreement < NEAR and self.above_chance >= MIN_ABOVE_CHANCE and ahead

    def __str__(self) -> str:
        tests = f"circular validation {self.circular:+.1f}, votes {self.votes:+.1f} standard errors"
        tests = f"hardly more than by chance; {tests}" if self.above_chance < MIN_ABOVE_CHANCE else tests
        return f"source_only and adapted predictions agree on {self.agreement:.1%} of the target ({tests})"


def compare_with_source(evidence: CandidateEvidence, before: np.ndarray, after: np.ndarray) -> SourceComparison:
    """Compare predicted classes `after` adapting with those `before`, both int64, shape (Nt,), of target rows.

    Features and source labels are those of `evidence`; its logits are not used. The tests count images (McNemar 1947).
    """
    source = unit_rows(np.concatenate([evidence.source_features, evidence.val_features]))
    labels = np.concatenate([evidence.source_labels, evidence.val_labels])
    target, differ = unit_rows(evidence.target_features), before != after
    if not differ.any():
        return SourceComparison(1.0, 0.0, 0.0)
    correct = [ridge_scores(target, classes, source).argmax(1) == labels for classes in (after, before)]
    votes = np.zeros(0, bool)
    if not differ.all():
        scores = ridge_scores(target[~differ], after[~differ], target[differ], evidence.classes)
        rows = np.arange(len(scores))
        votes = scores[rows, after[differ]] > scores[rows, before[differ]]
    tests = standard_errors(*correct), standard_errors(votes, ~votes), _above_chance(before, after)
    return SourceComparison(float(1 - differ.mean()), *tests)


def _above_chance(before: np.ndarray, after: np.ndarray) -> float:
    """Return by how many standard errors both agree more often than independent ones of these class shares would."""
    rows, classes = len(before), int(max(before.max(), after.max())) + 1
    chance = float(np.bincount(before, minlength=classes) @ np.bincount(after, minlength=classes)) / rows**2
    deviation = math.sqrt(max(chance * (1 - chance) / rows, 1 / rows**2))
    return (float((before == after).mean()) - chance) / deviation


def ridge_scores(features: np.ndarray, labels: np.ndarray, rows: np.ndarray, classes: int | None = None) -> np.ndarray:
    """Return the scores (n, classes) at `rows` (n, F) of a ridge classifier of `labels` (N,) on `features` (N, F).

    The score of a class without a label is -inf. Without a number of `classes` it is the largest label plus one.
    """
    from sklearn.linear_model import Ridge

    present = np.unique(labels)
    fitted = Ridge(1.0).fit(features, (labels[:, None] == present).astype(np.float32))
    scores = np.full((len(rows), classes or present[-1] + 1), -np.inf)
    scores[:, present] = fitted.predict(rows).reshape(len(rows), -1)
    return scores


def standard_errors(first: np.ndarray, second: np.ndarray) -> float:
    """Return by how many standard errors `first` is true more often than `second`, both bool, shape (N,).

    McNemar's statistic with its sign; the variance of rows in which only one is true is their number.

    Examples
    --------
    >>> standard_errors(np.array([True] * 5), np.array([False, False, False, False, True]))
    2.0
    """
    wins, losses = int((first & ~second).sum()), int((second & ~first).sum())
    return (wins - losses) / max(wins + losses, 1) ** 0.5
