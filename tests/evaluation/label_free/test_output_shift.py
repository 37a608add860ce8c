import numpy as np

from transfer.evaluation.label_free.output_shift import compare_outputs


def test_outputs_of_one_distribution_rarely_differ():
    """The correction for several classes keeps the level: below 0.05 in about 5 % of 200 draws."""
    rng = np.random.default_rng(0)
    values = [compare_outputs(*(rng.dirichlet(np.ones(6), size) for size in (200, 40))) for _ in range(200)]
    assert np.mean(np.array(values) < 0.05) <= 0.08


def test_less_confident_outputs_differ():
    rng = np.random.default_rng(0)
    sure, unsure = rng.dirichlet(np.full(6, 0.1), 200), rng.dirichlet(np.full(6, 10.0), 40)
    assert compare_outputs(sure, unsure) < 1e-6
