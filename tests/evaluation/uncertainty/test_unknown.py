"""Unknown scores against naive computations, one image at a time."""

import math

import numpy as np
import pytest
import torch
from sklearn.covariance import oas
from sklearn.metrics import roc_auc_score

from transfer.evaluation.uncertainty import unknown as module
from transfer.evaluation.uncertainty.unknown import UNKNOWN_SCORES, UnknownScore, measure_auroc


@pytest.fixture
def rows():
    """Features (60, 8) in three classes and their labels, and features and logits of ten images."""
    g = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 3
    features = torch.randn(60, 8, generator=g) + 3 * torch.eye(8)[labels]
    return features, labels, 2 * torch.randn(10, 8, generator=g), torch.randn(10, 3, generator=g)


def unit(x):
    return x / np.linalg.norm(x)


def naive(name, features, labels, x, logits):
    """Return the score of one image."""
    weights = [math.exp(z) for z in logits.tolist()]
    if name == "energy":
        return -math.log(sum(weights))
    if name == "msp":
        return 1 - max(weights) / sum(weights)
    known, x = np.stack([unit(row) for row in features.numpy()]), unit(x.numpy())
    if name == "knn":
        return 1 - max(float(row @ x) for row in known)
    if name == "guided":
        return -math.log(sum(weights)) * max(float(row @ x) for row in known)
    means = {k: known[labels.numpy() == k].mean(0) for k in (0, 1, 2)}
    residuals = np.stack([row - means[k] for row, k in zip(known, labels.tolist(), strict=True)])
    precision = np.linalg.inv(oas(residuals, assume_centered=True)[0])
    return min(float((x - mean) @ precision @ (x - mean)) for mean in means.values())


@pytest.mark.parametrize("name", list(UNKNOWN_SCORES))
def test_each_score_is_that_of_its_paper(name, rows):
    features, labels, new, logits = rows
    found = UnknownScore.fitted(name, features, labels).compute(new, logits).numpy()
    wanted = np.array([naive(name, features, labels, *image) for image in zip(new, logits, strict=True)])
    scale = np.median(wanted / found) if name == "mahalanobis" else 1.0  # which orders images alike
    np.testing.assert_allclose(scale * found, wanted, rtol=5e-3, atol=2e-3)


def test_the_nearest_neighbour_score_has_few_rows_of_every_class(rows, monkeypatch):
    monkeypatch.setattr(module, "MAX_NEIGHBOURS", 7)
    features, labels, *_ = rows
    stored = UnknownScore.fitted("knn", features, labels).state["rows"].float()
    nearest = (torch.nn.functional.normalize(features) @ stored.T).argmax(0)
    assert len(stored) == 7
    assert labels[nearest].bincount(minlength=3).min() >= 2


def test_the_rate_is_the_share_of_known_images_that_score_less(rows):
    *_, new, logits = rows
    score = UnknownScore("energy", {}, torch.tensor([-3.0, -2.0, -1.5, -1.0]))
    raw = score.compute(new, logits).tolist()
    wanted = [sum(reference < value for reference in (-3.0, -2.0, -1.5, -1.0)) / 4 for value in raw]
    assert score.rate(new, logits).tolist() == wanted
    assert len(set(wanted)) > 1


def test_a_binary_head_has_two_classes():
    score = UnknownScore("msp", {}, torch.empty(0))
    logits = torch.tensor([0.0, 2.0, -2.0])
    wanted = [1 - max(p, 1 - p) for p in (1 / (1 + math.exp(-z)) for z in logits.tolist())]
    np.testing.assert_allclose(score.compute(torch.zeros(3, 2), logits).numpy(), wanted, atol=1e-6)


def test_the_area_is_that_of_the_roc_curve():
    rng = np.random.default_rng(0)
    known, unknown = rng.integers(0, 6, 40), rng.integers(2, 9, 30)  # with ties
    wanted = roc_auc_score([0] * 40 + [1] * 30, [*known, *unknown])
    assert measure_auroc(known, unknown) == pytest.approx(wanted)


@pytest.mark.parametrize("name", UNKNOWN_SCORES)
def test_labels_and_outputs_may_be_on_the_cpu(rows, name, device):
    """Features of a network on a GPU are there, labels and the outputs of cross-fitted probes are not."""
    features, labels, x, logits = rows
    expected = UnknownScore.fitted(name, features, labels).compute(x, logits)
    score = UnknownScore.fitted(name, features.to(device), labels)
    found = score.compute(x.to(device), logits)
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-2, atol=1e-3)
    assert found.device.type == device


@pytest.mark.parametrize("name", UNKNOWN_SCORES)
def test_outputs_follow_the_features_to_their_device(rows, name):
    features, labels, x, logits = rows
    found = UnknownScore.fitted(name, features, labels).compute(x.to("meta"), logits)  # a device on any machine
    assert (found.device.type, found.shape) == ("meta", (10,))
