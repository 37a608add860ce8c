import numpy as np
import pytest

from transfer.adaptation.selection import source_comparison
from transfer.adaptation.selection.evidence import CandidateEvidence, unit_rows
from transfer.adaptation.selection.source_comparison import SourceComparison, compare_with_source

CLASSES, WIDTH = 5, 12
MEANS = 2.5 * np.eye(CLASSES, WIDTH)


def domains(rows=400, seed=0):
    """Return evidence of two domains of the same five classes, and the target's true ones."""
    rng = np.random.default_rng(seed)
    source, val, target = (rng.integers(0, CLASSES, size) for size in (rows, rows // 4, rows))
    x, v, t = ((MEANS[y] + rng.normal(size=(len(y), WIDTH))).astype(np.float32) for y in (source, val, target))
    blank = [np.zeros((len(part), CLASSES), np.float32) for part in (v, t)]
    return CandidateEvidence(x, source, v, blank[0], val, t, blank[1]), target


def spoilt(true, share, seed=1):
    """Return classes of which `share` are shifted to the next class."""
    rng = np.random.default_rng(seed)
    return np.where(rng.random(len(true)) < share, (true + 1) % CLASSES, true)


def test_better_predictions_convince_and_worse_ones_do_not():
    evidence, true = domains()
    better = compare_with_source(evidence, spoilt(true, 0.3), true)
    assert better.convincing
    assert better.votes > 4
    worse = compare_with_source(evidence, true, spoilt(true, 0.3))
    assert not worse.convincing
    assert worse.votes < -4
    assert worse.agreement == better.agreement == pytest.approx(0.7, abs=0.06)


def test_predictions_that_were_mostly_wrong_are_found_by_circular_validation():
    """What both agree on is then wrong too, so the votes mislead."""
    evidence, true = domains()
    before = (true + 1) % CLASSES
    found = compare_with_source(evidence, before, np.where(np.arange(len(true)) % 5 < 2, before, true))
    assert found.circular > 4
    assert found.convincing


def test_equal_predictions_are_never_convincing():
    evidence, true = domains()
    assert compare_with_source(evidence, true, true) == SourceComparison(1.0, 0.0, 0.0)
    few = true.copy()
    few[:12] = (true[:12] + 1) % CLASSES
    near = compare_with_source(evidence, few, true)
    assert near.agreement == pytest.approx(0.97)
    assert not near.convincing  # however strong the tests: little is to be gained


def test_no_prediction_in_common():
    evidence, true = domains(40)
    found = compare_with_source(evidence, (true + 1) % CLASSES, true)
    assert (found.agreement, found.votes) == (0.0, 0.0)
    assert found.circular > 1


def test_both_tests_count_for_the_verdict():
    assert SourceComparison(0.8, 1.0, -9.0).convincing
    assert SourceComparison(0.8, -9.0, 4.0).convincing
    assert not SourceComparison(0.8, 0.9, 3.9).convincing
    assert not SourceComparison(0.95, 9.0, 9.0).convincing
    assert str(SourceComparison(0.812, 1.04, -2.0)).startswith("source_only and adapted predictions agree on 81.2% of")


def test_predictions_that_agree_by_chance_alone_are_never_taken():
    """Even correct ones: without labels nothing tells them from a wrong naming of the target's clusters."""
    evidence, true = domains()
    unrelated = np.random.default_rng(3).permutation(true)
    found = compare_with_source(evidence, unrelated, true)
    shares = np.bincount(true) / len(true)
    chance = float((shares**2).sum())
    same = float((unrelated == true).mean())
    assert found.above_chance == pytest.approx((same - chance) / (chance * (1 - chance) / len(true)) ** 0.5)
    assert found.above_chance < 4
    assert found.circular > 4
    assert not found.convincing
    assert SourceComparison(0.3, 9.0, 9.0, 4.0).convincing
    assert not SourceComparison(0.3, 9.0, 9.0, 3.9).convincing
    assert "of the target (hardly more than by chance; circular" in str(found)
    constant = compare_with_source(evidence, np.zeros_like(true), np.ones_like(true))
    assert np.isfinite(constant.above_chance)
    assert not constant.convincing


def test_the_tests_against_naive_counts():
    evidence, true = domains(120)
    before, after = spoilt(true, 0.4), spoilt(true, 0.15, seed=2)
    z = unit_rows(evidence.target_features).astype(float)
    x = unit_rows(np.concatenate([evidence.source_features, evidence.val_features])).astype(float)
    y = np.concatenate([evidence.source_labels, evidence.val_labels])

    def scores(rows, labels, at):
        """Ridge regression in closed form, on centred features."""
        one_hot = np.eye(CLASSES)[labels]
        centred = rows - rows.mean(0)
        weights = np.linalg.solve(centred.T @ centred + np.eye(WIDTH), centred.T @ (one_hot - one_hot.mean(0)))
        return (at - rows.mean(0)) @ weights + one_hot.mean(0)

    wins = losses = 0
    for right_after, right_before in zip(
        scores(z, after, x).argmax(1) == y, scores(z, before, x).argmax(1) == y, strict=True
    ):
        wins += bool(right_after and not right_before)
        losses += bool(right_before and not right_after)
    found = compare_with_source(evidence, before, after)
    assert found.circular == pytest.approx((wins - losses) / (wins + losses) ** 0.5)
    same = before == after
    votes = [
        s[a] > s[b] for s, a, b in zip(scores(z[same], after[same], z[~same]), after[~same], before[~same], strict=True)
    ]
    assert found.votes == pytest.approx((2 * sum(votes) - len(votes)) / len(votes) ** 0.5)
    assert found.agreement == same.mean()


def test_a_class_that_nothing_is_labelled_with_is_never_chosen():
    rows = np.eye(3, dtype=np.float32)
    scores = source_comparison.ridge_scores(rows, np.array([0, 2, 2]), rows, classes=4)
    assert scores.shape == (3, 4)
    assert np.isneginf(scores[:, [1, 3]]).all()
    assert np.isfinite(scores[:, [0, 2]]).all()
    assert source_comparison.ridge_scores(rows, np.array([1, 1, 1]), rows).argmax(1).tolist() == [1, 1, 1]
