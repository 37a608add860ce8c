import math

import numpy as np
import pytest

from transfer.advice.transferability.information import estimate_predicted_information


def test_it_agrees_with_the_formula() -> None:
    p = np.random.default_rng(0).dirichlet(np.ones(5), size=30)
    mean = [sum(row[k] for row in p) / 30 for k in range(5)]
    whole = -sum(m * math.log(m) for m in mean)
    each = sum(-sum(v * math.log(v) for v in row) for row in p) / 30
    bias = sum(sum((row[k] - mean[k]) ** 2 for row in p) / 29 / 30 / mean[k] for k in range(5)) / 2
    assert estimate_predicted_information(p) == pytest.approx(whole - each + bias)


def test_counts_have_millers_correction() -> None:
    """For probabilities of 0 and 1: entropy of the counts plus (classes - 1) / 2N."""
    z = np.array([0] * 6 + [1] * 3 + [2])
    entropy = -sum(s * math.log(s) for s in (0.6, 0.3, 0.1))
    assert estimate_predicted_information(np.eye(4)[z]) == pytest.approx(entropy + 2 / (2 * 9))


def test_the_correction_removes_the_bias() -> None:
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.full(20, 0.1), size=20_000)
    truth = estimate_predicted_information(p)
    samples = np.stack([p[rng.permutation(len(p))[:60]] for _ in range(100)])
    corrected = np.mean([estimate_predicted_information(part) for part in samples])
    entropy = -(samples.mean(1) * np.log(samples.mean(1))).sum(1) + np.where(
        samples > 0, samples * np.log(samples + 1e-300), 0
    ).sum(2).mean(1)
    assert abs(corrected - truth) < 0.35 * abs(entropy.mean() - truth)


def test_minimum_and_maximum() -> None:
    assert estimate_predicted_information(np.full((50, 8), 1 / 8)) == 0.0
    assert estimate_predicted_information(np.tile([0.9, 0.1, 0.0], (50, 1))) == pytest.approx(0.0, abs=1e-12)
    assert estimate_predicted_information(np.eye(8)[np.arange(16) % 8]) == pytest.approx(math.log(8))
    assert estimate_predicted_information(np.eye(8)[:1]) == 0.0
