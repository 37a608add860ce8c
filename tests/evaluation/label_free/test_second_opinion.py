import numpy as np
import pytest

from transfer.evaluation.label_free.second_opinion import SecondOpinion, standardise


def test_agreement_counts_images_that_both_classifiers_call_alike():
    """Compared with a loop; a common shift and scale of all images makes no difference."""
    rng = np.random.default_rng(0)
    features, predicted = rng.normal(2, 3, (60, 5)), rng.integers(0, 4, 60)
    opinion = SecondOpinion(*(rng.normal(size=shape).astype(np.float32) for shape in ((4, 5), 4, (4, 5))))
    count = 0
    for row, k in enumerate(predicted):
        x = [(features[row, f] - features[:, f].mean()) / features[:, f].std() for f in range(5)]
        probe = [np.dot(opinion.weight[c], x) + opinion.bias[c] for c in range(4)]
        nearest = [np.dot(opinion.centroids[c], x) for c in range(4)]
        count += int(np.argmax(probe) == k == np.argmax(nearest))
    assert 0 < count < 30
    assert opinion.measure_agreement(features, predicted) == pytest.approx(count / 60)
    assert opinion.measure_agreement(10 * features - 4, predicted) == pytest.approx(count / 60)


def test_a_constant_feature_stays_finite():
    x = standardise(np.array([[1.0, 2.0], [1.0, 4.0]]))
    assert x.tolist() == [[0, -1], [0, 1]]
    assert np.isfinite(standardise(np.ones((3, 2)))).all()
