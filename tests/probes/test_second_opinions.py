"""Second opinions are fitted to the training rows of each head of classes but the domain."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from transfer.evaluation.label_free.second_opinion import standardise
from transfer.evaluation.predictions import target_tensors
from transfer.feature_cache import TrunkCache
from transfer.probes import second_opinions
from transfer.probes.second_opinions import fit_second_opinion, fit_second_opinions


def test_probe_and_centroids_are_those_of_standardised_features():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 90)
    features = (np.eye(8)[labels] * 2 + rng.normal(size=(90, 8))) * np.arange(1, 9) + 5
    found = fit_second_opinion(torch.from_numpy(features).float(), torch.from_numpy(labels), 4)
    x = standardise(features)
    theirs = LogisticRegression(C=1 / (0.01 * 90), tol=1e-8, max_iter=5000).fit(x, labels)
    np.testing.assert_allclose((x @ found.weight.T + found.bias).argmax(1), theirs.predict(x))
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    for k in range(3):
        mean = unit[labels == k].mean(0)
        np.testing.assert_allclose(found.centroids[k], mean / np.linalg.norm(mean), atol=1e-5)
    assert not found.centroids[3].any()  # no image shows this class


@pytest.fixture
def feed(taught, data):
    model, plan = taught()
    model.freeze(plan.phases[-1])
    return TrunkCache().feed(model.eval(), data.table.paths, data.digests, batch_size=64, workers=1)


def test_the_object_has_one_and_the_domain_none(feed, data):
    labels = target_tensors(data.table, feed.model)
    found = fit_second_opinions(feed, data.train, labels, {"object": 0.1}, seed=0)
    assert found.keys() == {"object"}
    with torch.inference_mode():
        x = torch.cat([x for _, x in feed.batches(data.train)])
        features = feed.model.features(x).float()
    want = fit_second_opinion(features, labels["object"][data.train], 3, 0.1)
    np.testing.assert_allclose(found["object"].weight, want.weight, atol=1e-4)
    assert not np.allclose(want.weight, fit_second_opinion(features, labels["object"][data.train], 3).weight, atol=1e-3)


def test_too_little_to_fit(feed, data):
    labels = target_tensors(data.table, feed.model)
    assert fit_second_opinions(feed, data.train[:0], labels, {}, seed=0) == {}
    one = data.train[labels["object"][data.train] == 1]
    assert fit_second_opinions(feed, one, labels, {}, seed=0) == {}


def test_of_many_rows_a_sample_is_used(feed, data, monkeypatch):
    monkeypatch.setattr(second_opinions, "MAX_FITTED", 12)
    labels = target_tensors(data.table, feed.model)
    found, again, other = (fit_second_opinions(feed, data.train, labels, {}, seed=seed)["object"] for seed in (0, 0, 1))
    np.testing.assert_array_equal(found.weight, again.weight)
    assert not np.array_equal(found.weight, other.weight)
