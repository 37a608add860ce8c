import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transfer.adaptation.selection import validators
from transfer.adaptation.selection.evidence import CandidateEvidence
from transfer.adaptation.selection.importance_weights import density_ratio
from transfer.errors import TransferError

TARGET_ONLY = ("entropy", "im", "snd", "mcc")
VALIDATED = ("source_val", "dev", "iwv")


def evidence(
    seed: int = 0, n: int = 40, target: int = 30, classes: int = 3, val: int = 20, width: int = 5
) -> CandidateEvidence:
    """Return a candidate whose features hold the classes and whose classifier is right more often than not."""
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(classes, width)) * 2

    def rows(size: int, moved: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        labels = rng.integers(0, classes, size)
        features = (means[labels] + rng.normal(size=(size, width)) + moved).astype(np.float32)
        return features, labels, (features @ means.T - (means**2).sum(1) / 2).astype(np.float32) / 3

    source, val_rows, aim = rows(n), rows(val), rows(target, 0.3)
    return CandidateEvidence(*source[:2], val_rows[0], val_rows[2], val_rows[1], aim[0], aim[2])


def probabilities(logits: np.ndarray) -> list[list[float]]:
    out = []
    for row in logits.astype(float).tolist():
        powers = [math.exp(x - max(row)) for x in row]
        out.append([power / sum(powers) for power in powers])
    return out


def h(p: list[float]) -> float:
    return -sum(q * math.log(q) for q in p if q > 0)


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


SEEDS = pytest.mark.parametrize("seed", range(3))


@SEEDS
def test_source_val_is_accuracy_and_the_loss_decides_ties(seed: int) -> None:
    e = evidence(seed)
    right = [int(row.argmax()) == label for row, label in zip(e.val_logits, e.val_labels, strict=True)]
    score = validators.VALIDATORS["source_val"].score(e)
    assert mean(right) - 1 / len(right) < score <= mean(right)
    surer = dataclasses.replace(
        e, val_logits=e.val_logits + 2 * np.eye(e.classes, dtype=np.float32)[e.val_logits.argmax(1)]
    )
    losses = [-math.log(p[y]) for p, y in zip(probabilities(surer.val_logits), e.val_labels, strict=True)]
    expected = mean(right) - (1 - math.exp(-mean(losses))) / (len(right) + 1)
    assert validators.VALIDATORS["source_val"].score(surer) == pytest.approx(expected)


@SEEDS
def test_one_more_correct_row_counts_more_than_any_loss(seed: int) -> None:
    e = evidence(seed)
    good = np.eye(e.classes, dtype=np.float32)[e.val_labels]
    barely = dataclasses.replace(e, val_logits=good * 1e-3)
    one_wrong = good * 50
    one_wrong[0] = np.roll(one_wrong[0], 1) / 1000
    sure = dataclasses.replace(e, val_logits=one_wrong)
    assert validators.VALIDATORS["source_val"].score(barely) > validators.VALIDATORS["source_val"].score(sure)


@SEEDS
def test_entropy_and_information_by_a_loop(seed: int) -> None:
    e = evidence(seed)
    p = probabilities(e.target_logits)
    each = mean([h(row) for row in p])
    assert validators.VALIDATORS["entropy"].score(e) == pytest.approx(-each)
    assert validators.VALIDATORS["im"].score(e) == pytest.approx(
        h([mean(list(column)) for column in zip(*p, strict=True)]) - each
    )


@SEEDS
@pytest.mark.parametrize("block", [1, 7, 1024])
def test_neighbourhood_density_by_a_loop(seed: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validators, "SIMILARITY_BLOCK_ROWS", block)
    e = evidence(seed)
    p = probabilities(e.target_logits)
    entropies = []
    for i, a in enumerate(p):
        cosines = [
            sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)
            for j, b in enumerate(p)
            if j != i
        ]
        powers = [math.exp(c / 0.05) for c in cosines]
        entropies.append(h([power / sum(powers) for power in powers]))
    assert validators.VALIDATORS["snd"].score(e) == pytest.approx(mean(entropies), rel=1e-4)


@SEEDS
def test_class_confusion_by_a_loop(seed: int) -> None:
    e = evidence(seed)
    p = probabilities(e.target_logits / 2.5)
    n, classes = len(p), len(p[0])
    sure = [1 + math.exp(-h(row)) for row in p]
    weights = [n * s / sum(sure) for s in sure]
    pairs = [[sum(weights[i] * p[i][j] * p[i][k] for i in range(n)) for k in range(classes)] for j in range(classes)]
    off = sum(pairs[j][k] / sum(pairs[j]) for j in range(classes) for k in range(classes) if j != k)
    assert validators.VALIDATORS["mcc"].score(e) == pytest.approx(-off / classes)


@SEEDS
def test_weighted_losses_by_a_loop(seed: int) -> None:
    e = evidence(seed)
    w = density_ratio(e.source_features, e.target_features, e.val_features).tolist()
    losses = [-math.log(p[y]) for p, y in zip(probabilities(e.val_logits), e.val_labels, strict=True)]
    weighted = [a * b for a, b in zip(w, losses, strict=True)]
    assert validators.VALIDATORS["iwv"].score(e) == pytest.approx(-mean(weighted))
    covariance = mean([a * b for a, b in zip(weighted, w, strict=True)]) - mean(weighted) * mean(w)
    variance = mean([a * a for a in w]) - mean(w) ** 2
    eta = -covariance / variance
    assert validators.VALIDATORS["dev"].score(e) == pytest.approx(-(mean(weighted) + eta * mean(w) - eta))


def test_the_control_variate_reduces_the_error() -> None:
    """Of a loss that is the feature itself the target's mean is known: 0.7, plus what keeps it positive."""
    plain, controlled = [], []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        source, val, target = (rng.normal(m, 1, (size, 1)) for m, size in ((0, 2000), (0, 200), (0.7, 2000)))
        loss = val[:, 0] + 4
        logits = np.stack([np.zeros(200), np.log(np.expm1(loss))], 1)  # cross-entropy of class 0 is `loss`
        zeros = np.zeros(len(source), np.int64)
        e = CandidateEvidence(source, zeros, val, logits, zeros[:200], target, np.zeros((2000, 2)))
        plain.append(-validators.VALIDATORS["iwv"].score(e) - 4.7)
        controlled.append(-validators.VALIDATORS["dev"].score(e) - 4.7)
    assert np.abs(controlled).mean() < 0.5 * np.abs(plain).mean()
    assert np.abs(controlled).mean() < 0.15


@SEEDS
def test_circular_by_the_normal_equations(seed: int) -> None:
    e = evidence(seed)
    x = e.target_features.astype(float) / np.linalg.norm(e.target_features, axis=1, keepdims=True)
    y = np.eye(e.classes)[e.target_logits.argmax(1)]
    centred = x - x.mean(0)
    weights = np.linalg.solve(centred.T @ centred + np.eye(x.shape[1]), centred.T @ (y - y.mean(0)))
    right = []
    for row, label in zip(e.source_features.astype(float), e.source_labels, strict=True):
        scores = (row / np.linalg.norm(row) - x.mean(0)) @ weights + y.mean(0)
        right.append(int(scores.argmax()) == label)
    assert validators.VALIDATORS["circular"].score(e) == pytest.approx(mean(right))


def test_circular_falls_with_wrong_predictions() -> None:
    e = evidence(1, n=200, target=200)
    shuffled = dataclasses.replace(e, target_logits=np.roll(e.target_logits, 1, axis=1))
    assert validators.VALIDATORS["circular"].score(e) > 0.8
    assert validators.VALIDATORS["circular"].score(shuffled) < 0.4


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), classes=st.integers(2, 5))
def test_the_order_of_rows_and_classes_does_not_matter(seed: int, classes: int) -> None:
    e = evidence(seed, classes=classes)
    rng = np.random.default_rng(seed)
    source, val, target, k = (rng.permutation(n) for n in (40, 20, 30, classes))
    place = np.argsort(k)
    mixed = CandidateEvidence(
        e.source_features[source],
        place[e.source_labels[source]],
        e.val_features[val],
        e.val_logits[val][:, k],
        place[e.val_labels[val]],
        e.target_features[target],
        e.target_logits[target][:, k],
    )
    for rule in validators.VALIDATORS.values():
        rel = 2e-2 if rule.name in ("dev", "iwv") else 1e-4  # the discriminator's solver stops where it stops
        assert rule.score(mixed) == pytest.approx(rule.score(e), rel=rel, abs=rel), rule.name


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), classes=st.integers(1, 5), target=st.integers(1, 30), scale=st.floats(0, 50))
def test_bounds(seed: int, classes: int, target: int, scale: float) -> None:
    e = evidence(seed, classes=classes, target=target)
    e = dataclasses.replace(e, target_logits=e.target_logits * np.float32(scale))
    limits = {
        "source_val": (-1, 1),
        "entropy": (-math.log(classes), 0),
        "im": (0, math.log(classes)),
        "snd": (0, math.log(max(target - 1, 1))),
        "iwv": (-math.inf, 0),
        "dev": (-math.inf, math.inf),
        "circular": (0, 1),
        "mcc": (-1, 0),
    }
    assert limits.keys() == validators.VALIDATORS.keys()
    for name, (low, high) in limits.items():
        score = validators.VALIDATORS[name].score(e)
        assert isinstance(score, float)
        assert low - 1e-5 <= score <= high + 1e-5, name


def test_confident_and_balanced_predictions_reach_the_bound() -> None:
    e = evidence(0, target=30)
    sure = dataclasses.replace(e, target_logits=np.tile(1000 * np.eye(3, dtype=np.float32), (10, 1)))
    assert validators.VALIDATORS["im"].score(sure) == pytest.approx(math.log(3))
    assert validators.VALIDATORS["entropy"].score(sure) == pytest.approx(0)
    assert validators.VALIDATORS["mcc"].score(sure) == pytest.approx(0, abs=1e-9)
    assert validators.VALIDATORS["snd"].score(sure) == pytest.approx(math.log(9), rel=1e-3)


@pytest.mark.parametrize("name", validators.VALIDATORS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_diverged_candidate_scores_minus_infinity(name: str, value: float) -> None:
    e = evidence()
    broken = e.target_logits.copy()
    broken[3, 1] = value
    assert validators.VALIDATORS[name].score(dataclasses.replace(e, target_logits=broken)) == -math.inf


@pytest.mark.parametrize("name", validators.VALIDATORS)
def test_without_held_out_rows(name: str) -> None:
    score = validators.VALIDATORS[name].score(evidence(val=0))
    assert math.isnan(score) == (name in VALIDATED)


def test_large_targets_are_scored_in_blocks() -> None:
    e = evidence(target=5000)
    assert 0 < validators.VALIDATORS["snd"].score(e) < math.log(4999)


def test_a_rule_is_found_by_name_or_a_similar_name_is_suggested() -> None:
    for name, rule in validators.VALIDATORS.items():
        assert validators.find_validators(name) == (rule, rule)
        assert rule.name == name
    with pytest.raises(
        TransferError, match=r"--rule circle: no such rule \(did you mean 'circular'\?\); known: auto, source"
    ):
        validators.find_validators("circle")


NAN = float("nan")


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ([0.1, 0.3, 0.2], 1),
        ([0.3, 0.3], 0),
        ([NAN, 0.1], 1),
        ([0.1, NAN], 0),
        ([NAN, -math.inf], 1),
        ([-math.inf, -math.inf], 0),
        ([-math.inf, -5.0], 1),
    ],
)
def test_choose_best(scores: list[float], best: int) -> None:
    assert validators.choose_best(scores) == best


@pytest.mark.parametrize("scores", [[], [NAN], [NAN, NAN]])
def test_scores_of_nan_alone_are_refused(scores: list[float]) -> None:
    with pytest.raises(TransferError, match="it needs held-out source rows"):
        validators.choose_best(scores)


@given(scores=st.lists(st.floats(allow_nan=True), min_size=1).filter(lambda s: not all(map(math.isnan, s))))
def test_choose_best_is_the_first_of_the_best(scores: list[float]) -> None:
    at = validators.choose_best(scores)
    numbers = [score for score in scores if not math.isnan(score)]
    assert scores[at] == max(numbers)
    assert scores.index(max(numbers)) == at
