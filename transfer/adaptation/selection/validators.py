"""Rules that score a candidate without a target label; higher is better.

Each estimates the target accuracy from what may be used
(:class:`~transfer.adaptation.selection.evidence.CandidateEvidence`): the source's labels, the confidence and balance of
the predictions, or how well a classifier of the predictions transfers back.

On Office-31 (frozen MobileNetV2, a small network under six losses at six lengths: 36 candidates a pair; mean of the six
pairs, best possible 0.849, source only 0.779) they chose: circular 0.838, im 0.837, entropy and mcc 0.832, source_val,
dev and iwv 0.796, snd 0.646. Circular alone follows the accuracy on every pair (rank correlation 0.79, at least 0.55;
im 0.52, mcc 0.43, snd -0.22). Rules that reward sureness choose the epoch of one run best (0.003 lost; circular 0.004),
but what was trained to be sure deceives them; snd prefers predictions that collapsed.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from transfer.adaptation.selection.evidence import CandidateEvidence, entropy, log_softmax, softmax, unit_rows
from transfer.errors import TransferError, did_you_mean

SIMILARITY_BLOCK_ROWS = 1024  # rows of a similarity matrix held at once


@dataclass(frozen=True)
class Validator:
    """A way to score a candidate.

    Parameters
    ----------
    name, what : str
        `what` says in a line what is measured, and who proposed it.
    measure : callable
        CandidateEvidence to a number; higher is better.
    validation : bool
        Whether it needs held-out labelled source rows.
    """

    name: str
    what: str
    measure: Callable[[CandidateEvidence], float]
    validation: bool = False

    def score(self, evidence: CandidateEvidence) -> float:
        """Return the score: -inf for a candidate that diverged, NaN where the rule has nothing to go by."""
        if not evidence.finite:
            return -math.inf
        if self.validation and not len(evidence.val_labels):
            return math.nan
        return float(self.measure(evidence))


def source_val(evidence: CandidateEvidence) -> float:
    """Return the accuracy on held-out source rows; less than one row's worth is taken off for their mean loss."""
    rows = len(evidence.val_labels)
    right = evidence.val_logits.argmax(1) == evidence.val_labels
    return right.mean() - (1 - math.exp(-_losses(evidence).mean())) / (rows + 1)


def negative_entropy(evidence: CandidateEvidence) -> float:
    """Return minus the mean entropy of the target's predictions (Morerio et al. 2018)."""
    return -entropy(evidence.target_logits).mean()


def information(evidence: CandidateEvidence) -> float:
    """Return H(mean p) - mean H(p), the information that predictions hold of target rows (Musgrave et al. 2022)."""
    mean = softmax(evidence.target_logits).mean(0, keepdims=True)
    return entropy(np.log(np.maximum(mean, 1e-300)))[0] + negative_entropy(evidence)


def neighbourhood_density(evidence: CandidateEvidence, temperature: float = 0.05) -> float:
    """Return the soft neighbourhood density of the target's predictions (Saito et al. 2021, eq. 1 to 3).

    A row's cosine similarities to every other row, through a softmax, are a distribution over neighbours; its entropy
    is high where many are equally near. As in the paper, rows are compared by their class probabilities.
    """
    rows = unit_rows(softmax(evidence.target_logits)).astype(np.float32)
    total = 0.0
    starts = range(0, len(rows), SIMILARITY_BLOCK_ROWS)
    for start in tqdm(starts, desc="neighbourhoods", unit="block", delay=2, leave=False, disable=None):
        block = rows[start : start + SIMILARITY_BLOCK_ROWS] @ rows.T / temperature
        own = np.arange(len(block))
        block[own, start + own] = -1e9  # not its own neighbour; finite, as 0 * log 0 must be 0
        total += entropy(block).sum()
    return total / len(rows) if len(rows) > 1 else 0.0


def importance_weighted(evidence: CandidateEvidence) -> float:
    """Return minus the source's held-out loss, each row weighted by its density ratio (Sugiyama et al. 2007)."""
    return -(_ratios(evidence) * _losses(evidence)).mean()


def deep_embedded(evidence: CandidateEvidence) -> float:
    """Return :func:`importance_weighted` with the weights as control variate (You et al. 2019, eq. 7 and 8).

    Weights have mean 1 in truth; how far they are off says how far the weighted loss is off.
    """
    weights = _ratios(evidence)
    weighted = weights * _losses(evidence)
    spread = weights.var()
    slope = -np.mean((weighted - weighted.mean()) * (weights - weights.mean())) / spread if spread > 0 else 0.0
    return -(weighted.mean() + slope * weights.mean() - slope)


def circular(evidence: CandidateEvidence) -> float:
    """Return the source accuracy of a classifier learned on the target's predictions (Zhong et al. 2010).

    The way back of Ganin et al. (2016, sec. 5.1.2): a ridge classifier learns the candidate's own answers on target
    features; where they are right it fits the source's true labels.
    """
    from sklearn.linear_model import Ridge

    answers = evidence.target_logits.argmax(1)
    seen = np.unique(answers)
    back = Ridge(1.0).fit(unit_rows(evidence.target_features), (answers[:, None] == seen).astype(np.float32))
    scores = back.predict(unit_rows(evidence.source_features)).reshape(len(evidence.source_labels), -1)
    return (seen[scores.argmax(1)] == evidence.source_labels).mean()


def confusion(evidence: CandidateEvidence, temperature: float = 2.5) -> float:
    """Return minus the class confusion of the target's predictions (Jin et al. 2020, eq. 3 to 7)."""
    logits = evidence.target_logits / temperature
    p = softmax(logits)
    sure = 1 + np.exp(-entropy(logits))
    together = (p * (sure * len(p) / sure.sum())[:, None]).T @ p
    together /= np.maximum(together.sum(1, keepdims=True), 1e-300)
    return -(together.sum() - np.trace(together)) / len(together)


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
        Validator("entropy", "predictions that are sure (Morerio et al. 2018)", negative_entropy),
        Validator("im", "predictions that are sure, of every class (information; Musgrave et al. 2022)", information),
        Validator(
            "snd", "predictions in dense groups (soft neighbourhood density; Saito et al. 2021)", neighbourhood_density
        ),
        Validator("dev", "weighted source loss, less its own error (You et al. 2019)", deep_embedded, validation=True),
        Validator(
            "iwv", "source loss weighted by density ratio (Sugiyama et al. 2007)", importance_weighted, validation=True
        ),
        Validator("circular", "predictions that teach the source's labels back (Zhong et al. 2010)", circular),
        Validator("mcc", "predictions that do not mix classes (class confusion; Jin et al. 2020)", confusion),
    )
}


AUTO_RULES = ("im", "circular")


def rule_summaries() -> dict[str, str]:
    """Return the one-line summary of every rule, by name."""
    return {"auto": f"{AUTO_RULES[0]} for epoch and weight, {AUTO_RULES[1]} between methods"} | {
        name: validator.what for name, validator in VALIDATORS.items()
    }


def find_validators(name: str) -> tuple[Validator, Validator]:
    """Return the rule for the epochs of a method, and the one for methods; ``auto`` names the pair found most reliable.

    On frozen features of Office-31 (six losses, six lengths each, six pairs) information maximisation took the epoch
    with a mean regret of 0.0025 (at most 0.016), circular validation the method with one of 0.011 and, alone of all
    rules, never one worse than the source's own classifier. That is with class shares alike: where they differ
    strongly, no rule is reliable.

    Raises
    ------
    TransferError
        There is none.
    """
    if name == "auto":
        return VALIDATORS[AUTO_RULES[0]], VALIDATORS[AUTO_RULES[1]]
    if name not in VALIDATORS:
        known = ["auto", *VALIDATORS]
        raise TransferError(f"--rule {name}: no such rule{did_you_mean(name, known)}; there are {', '.join(known)}")
    return VALIDATORS[name], VALIDATORS[name]


def choose_best(scores: Sequence[float]) -> int:
    """Return the index of the highest score; the earliest of equals. NaN loses to any number.

    Raises
    ------
    TransferError
        There is no score but NaN.

    Examples
    --------
    >>> choose_best([0.5, float("nan"), 0.7, 0.7])
    2
    """
    if all(math.isnan(score) for score in scores):
        raise TransferError(
            "the rule can score no candidate: it needs held-out source rows; keep some, or name another"
        )
    return max(range(len(scores)), key=lambda i: (not math.isnan(scores[i]), scores[i]))
