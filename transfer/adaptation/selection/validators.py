"""Rules that score a candidate without a target label; higher is better.

Each estimates the target accuracy from what may be used
(:class:`~transfer.adaptation.selection.evidence.CandidateEvidence`): the source's labels, the confidence and balance of
the predictions, or how well a classifier of the predictions transfers back.

Target accuracy of the chosen candidate on Office-31 (frozen MobileNetV2, a small network, six losses, six training
lengths: 36 candidates for each of six source-target pairs; mean of the pairs; best candidate 0.849, source only 0.779):
circular 0.838, im 0.837, entropy and mcc 0.832, source_val, dev and iwv 0.796, snd 0.646. Only circular correlates with
the accuracy on every pair (mean rank correlation 0.79, minimum 0.55; means of im 0.52, mcc 0.43, snd -0.22). Rules that
reward confidence choose the epoch of one run best (regret 0.003; circular 0.004), but losses that train confidence
mislead them; snd prefers collapsed predictions.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from tqdm.auto import tqdm

from transfer.adaptation.selection.evidence import CandidateEvidence, entropy, log_softmax, softmax, unit_rows
from transfer.adaptation.selection.source_comparison import ridge_scores
from transfer.errors import TransferError, did_you_mean

SIMILARITY_BLOCK_ROWS = 1024  # rows of the similarity matrix in memory at once


@dataclass(frozen=True)
class Validator:
    """A rule that scores candidates without target labels."""

    name: str  # as given to --rule
    summary: str  # what is measured, and the paper
    measure: Callable[[CandidateEvidence], float]  # higher is better
    validation: bool = False  # whether it needs held-out labelled source rows

    def score(self, evidence: CandidateEvidence) -> float:
        """Return the score: -inf after divergence, NaN without the validation rows that the rule needs."""
        if not evidence.finite:
            return -math.inf
        if self.validation and not len(evidence.val_labels):
            return math.nan
        return float(self.measure(evidence))


def source_val(evidence: CandidateEvidence) -> float:
    """Return the accuracy on held-out source rows; their mean loss, worth less than one row, breaks ties."""
    rows = len(evidence.val_labels)
    correct = evidence.val_logits.argmax(1) == evidence.val_labels
    return correct.mean() - (1 - math.exp(-_losses(evidence).mean())) / (rows + 1)


def negative_entropy(evidence: CandidateEvidence) -> float:
    """Return minus the mean entropy of the target's predictions (Morerio et al. 2018)."""
    return -entropy(evidence.target_logits).mean()


def information(evidence: CandidateEvidence) -> float:
    """Return H(mean p) - mean H(p), the mutual information of target rows and predictions (Musgrave et al. 2022)."""
    mean = softmax(evidence.target_logits).mean(0, keepdims=True)
    return entropy(np.log(np.maximum(mean, 1e-300)))[0] + negative_entropy(evidence)


def neighbourhood_density(evidence: CandidateEvidence, temperature: float = 0.05) -> float:
    """Return the soft neighbourhood density of the target's predictions (Saito et al. 2021, eq. 1 to 3).

    The softmax of a row's cosine similarities to all other rows is a distribution over neighbours, whose entropy is
    high if many are equally near. As in the paper, rows are compared by their class probabilities.
    """
    rows = unit_rows(softmax(evidence.target_logits)).astype(np.float32)
    total = 0.0
    starts = range(0, len(rows), SIMILARITY_BLOCK_ROWS)
    for start in tqdm(starts, desc="neighbourhoods", unit="block", delay=2, leave=False, disable=None):
        block = rows[start : start + SIMILARITY_BLOCK_ROWS] @ rows.T / temperature
        diagonal = np.arange(len(block))
        block[diagonal, start + diagonal] = -1e9  # no row is its own neighbour; finite, so that 0 * log 0 is 0
        total += entropy(block).sum()
    return total / len(rows) if len(rows) > 1 else 0.0


def importance_weighted(evidence: CandidateEvidence) -> float:
    """Return minus the source's held-out loss, each row weighted by its density ratio (Sugiyama et al. 2007)."""
    return -(_ratios(evidence) * _losses(evidence)).mean()


def deep_embedded(evidence: CandidateEvidence) -> float:
    """Return :func:`importance_weighted` with the weights as control variate (You et al. 2019, eq. 7 and 8).

    The true weights have mean 1, so the error of their mean corrects the error of the weighted loss.
    """
    weights = _ratios(evidence)
    weighted = weights * _losses(evidence)
    spread = weights.var()
    slope = -np.mean((weighted - weighted.mean()) * (weights - weights.mean())) / spread if spread > 0 else 0.0
    return -(weighted.mean() + slope * weights.mean() - slope)


def circular(evidence: CandidateEvidence) -> float:
    """Return the source accuracy of a classifier trained on the target's predictions (Zhong et al. 2010).

    Reverse validation as in Ganin et al. (2016, sec. 5.1.2): a ridge classifier learns the candidate's predictions
    from target features. If they are correct, it also predicts the source's labels.
    """
    predicted = evidence.target_logits.argmax(1)
    scores = ridge_scores(unit_rows(evidence.target_features), predicted, unit_rows(evidence.source_features))
    return (scores.argmax(1) == evidence.source_labels).mean()


def confusion(evidence: CandidateEvidence, temperature: float = 2.5) -> float:
    """Return minus the class confusion of the target's predictions (Jin et al. 2020, eq. 3 to 7)."""
    logits = evidence.target_logits / temperature
    p = softmax(logits)
    weight = 1 + np.exp(-entropy(logits))
    correlation = (p * (weight * len(p) / weight.sum())[:, None]).T @ p
    correlation /= np.maximum(correlation.sum(1, keepdims=True), 1e-300)
    return -(correlation.sum() - np.trace(correlation)) / len(correlation)


def _losses(evidence: CandidateEvidence) -> np.ndarray:
    """Return the cross-entropy (Nv,) of each held-out source row."""
    return -log_softmax(evidence.val_logits)[np.arange(len(evidence.val_labels)), evidence.val_labels]


def _ratios(evidence: CandidateEvidence) -> np.ndarray:
    from transfer.adaptation.selection.importance_weights import density_ratio

    return density_ratio(evidence.source_features, evidence.target_features, evidence.val_features)


VALIDATORS: dict[str, Validator] = {
    rule.name: rule
    for rule in (
        Validator("source_val", "accuracy on held-out source rows, ties by loss", source_val, validation=True),
        Validator("entropy", "confident target predictions (Morerio et al. 2018)", negative_entropy),
        Validator(
            "im", "confident and balanced target predictions: mutual information (Musgrave et al. 2022)", information
        ),
        Validator("snd", "soft neighbourhood density of target predictions (Saito et al. 2021)", neighbourhood_density),
        Validator(
            "dev",
            "iwv with a control variate: deep embedded validation (You et al. 2019)",
            deep_embedded,
            validation=True,
        ),
        Validator(
            "iwv", "source loss weighted by density ratio (Sugiyama et al. 2007)", importance_weighted, validation=True
        ),
        Validator(
            "circular",
            "source accuracy of a classifier trained on the target predictions (Zhong et al. 2010)",
            circular,
        ),
        Validator("mcc", "low class confusion of target predictions (Jin et al. 2020)", confusion),
    )
}


AUTO_RULES = ("im", "circular")


def rule_summaries() -> dict[str, str]:
    """Return the one-line summary of every rule, by name."""
    return {"auto": f"{AUTO_RULES[0]} for epoch and weight, {AUTO_RULES[1]} between methods"} | {
        name: validator.summary for name, validator in VALIDATORS.items()
    }


def find_validators(name: str) -> tuple[Validator, Validator]:
    """Return the rule that chooses among epochs and weights, and the one that chooses among methods.

    ``auto`` is the most reliable pair found. On frozen features of Office-31 (six losses, six lengths, six pairs), im
    chooses the epoch with a mean regret of 0.0025 (maximum 0.016). Circular chooses the method with a mean regret of
    0.011 and, as the only rule, never one worse than the source's classifier. This holds for similar class shares:
    under strong label shift no rule is reliable.

    Raises
    ------
    TransferError
        The rule is unknown.
    """
    if name == "auto":
        return VALIDATORS[AUTO_RULES[0]], VALIDATORS[AUTO_RULES[1]]
    if name not in VALIDATORS:
        known = ["auto", *VALIDATORS]
        raise TransferError(f"--rule {name}: no such rule{did_you_mean(name, known)}; known: {', '.join(known)}")
    return VALIDATORS[name], VALIDATORS[name]


def choose_best(scores: Sequence[float]) -> int:
    """Return the index of the highest score, the first of equal ones. NaN is lower than any number.

    Raises
    ------
    TransferError
        Every score is NaN.

    Examples
    --------
    >>> choose_best([0.5, float("nan"), 0.7, 0.7])
    2
    """
    if all(math.isnan(score) for score in scores):
        raise TransferError(
            "--rule: it needs held-out source rows, and there are none: say --val 0.1, or name another rule"
        )
    return max(range(len(scores)), key=lambda i: (not math.isnan(scores[i]), scores[i]))
