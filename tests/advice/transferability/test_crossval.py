from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from transfer.advice.transferability import crossval
from transfer.advice.transferability.crossval import cross_validate
from transfer.advice.transferability.folds import assign_folds
from transfer.backbones.trunk import Trunk
from transfer.config.train import BackboneConfig, DataConfig
from transfer.data.images.batches import ImageBatches
from transfer.errors import TransferError
from transfer.heads import HeadSpec
from transfer.heads.heads import Heads
from transfer.heads.metrics import wilson_interval
from transfer.probes import lbfgs
from transfer.probes.linear import solve_linear_probe
from transfer.training.setup import new_backbone, read_images

SHARED = Path(__file__).parents[4] / "shared"


def blobs(n: int = 300, width: int = 20, classes: int = 4, apart: float = 1.2) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, n)
    return rng.normal(size=(n, width)) * np.logspace(0, 1, width) + apart * rng.normal(size=(classes, width))[
        labels
    ] * np.logspace(0, 1, width), labels


@pytest.mark.parametrize("width", [20, 400])
def test_it_agrees_with_scikit_learn_fold_by_fold(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """scikit-learn's logistic regression on equally scaled features, one fold at a time."""
    x, labels = blobs(width=width, apart=0.6 if width == 20 else 0.15)
    folds = assign_folds(labels)
    loose = cross_validate(x, labels, folds)
    monkeypatch.setattr(lbfgs, "COARSE_TOLERANCE", 1e-5)
    found = cross_validate(x, labels, folds)
    z = (x - x.mean(0)) / np.sqrt(x.std(0) * x.std(0).mean())
    p = np.empty((len(x), 4))
    for fold in range(5):
        trains = folds != fold
        l2 = found.l2 * trains.sum()
        p[~trains] = (
            LogisticRegression(C=1 / l2, max_iter=1000).fit(z[trains], labels[trains]).predict_proba(z[~trains])
        )
    accuracy = (p.argmax(1) == labels).mean()
    assert 0.5 < accuracy < 0.98
    assert found.accuracy == pytest.approx(accuracy, abs=0.005)
    assert np.abs(found.probabilities - p).mean() < 0.003
    assert loose.accuracy == pytest.approx(accuracy, abs=0.02)


def test_the_result_is_consistent() -> None:
    x, labels = blobs()
    labels = labels * 2  # classes 1, 3 and 5 do not occur
    labels[::10] = -1
    folds = assign_folds(labels)
    found = cross_validate(x, labels, folds)
    known = labels >= 0
    assert found.probabilities.shape == (300, 7)
    assert np.isnan(found.probabilities[~known]).all()
    np.testing.assert_allclose(found.probabilities[known].sum(1), 1)
    assert (found.probabilities[known][:, [1, 3, 5]] == 0).all()
    assert (found.predictions[~known] == -1).all()
    assert (found.predictions[known] == found.probabilities[known].argmax(1)).all()
    assert found.accuracy == (found.predictions == labels)[known].mean()
    assert found.interval == wilson_interval((found.predictions == labels)[known].mean(), known.sum())
    own = found.probabilities[known, labels[known]]
    assert found.loss == pytest.approx(-np.log(own).mean())


def test_random_labels_are_not_predicted() -> None:
    """Labels that features say nothing of are not predicted, however many features there are to learn them by."""
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(200, 500)), rng.integers(0, 4, 200)
    found = cross_validate(x, labels, assign_folds(labels))
    assert found.accuracy < 0.35
    assert found.loss == pytest.approx(np.log(4), abs=0.06)


def test_a_large_problem_chooses_l2_by_one_fold_without_leaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crossval, "MAX_SEARCH_SIZE", 0)
    rng, labels = np.random.default_rng(0), np.arange(300) % 60
    features, folds = 3 * rng.normal(size=(300, 400)) + rng.normal(size=(60, 400))[labels], assign_folds(labels)
    correct = []
    for fold in range(5):
        trains = folds != fold
        probe = LogisticRegression(C=1e3, max_iter=1000).fit(features[trains], labels[trains])
        correct.extend(probe.predict(features[~trains]) == labels[~trains])
    assert cross_validate(features, labels, folds).accuracy == pytest.approx(np.mean(correct), abs=0.04)
    monkeypatch.setattr(lbfgs, "COARSE_TOLERANCE", 1e-6)
    monkeypatch.setattr(lbfgs, "MIN_RELATIVE_DECREASE", 0.0)  # else rounding says where a solution ends
    features, labels = blobs()
    folds = assign_folds(labels)
    heavy = cross_validate(features, labels, folds)
    monkeypatch.setattr(crossval, "MAX_SEARCH_SIZE", 10**9)
    light = cross_validate(features, labels, folds)
    assert heavy.l2 == light.l2  # 60 rows choose as 300 do
    np.testing.assert_allclose(heavy.probabilities, light.probabilities, atol=0.01)


def test_small_components_of_a_very_large_problem_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = blobs()
    folds = assign_folds(labels, np.arange(300))
    x = (features - features.mean(0)) / np.sqrt(features.std(0) * features.std(0).mean())
    _, sizes, axes = np.linalg.svd(x, full_matrices=False)
    parts, variances = crossval._principal_components(torch.from_numpy(features).float(), (), 6)
    np.testing.assert_allclose(variances.numpy(), np.square(sizes[5::-1]) / 300, rtol=1e-3)
    np.testing.assert_allclose(np.abs(parts.numpy()), np.abs(x @ axes[5::-1].T), atol=1e-2)
    monkeypatch.setattr(crossval, "MAX_PROBLEM_SIZE", 6 * 300 * 5 * 4)
    fewer = cross_validate(features, labels, folds)
    monkeypatch.undo()
    assert np.abs(cross_validate(features, labels, folds).probabilities - fewer.probabilities).max() > 0.1


def test_duplicates_in_one_fold_do_not_leak() -> None:
    rng = np.random.default_rng(0)
    x, labels = np.repeat(rng.normal(size=(150, 300)), 2, axis=0), np.repeat(rng.integers(0, 3, 150), 2)
    apart = cross_validate(x, labels, assign_folds(labels)).accuracy
    together = cross_validate(x, labels, assign_folds(labels, np.arange(300) // 2)).accuracy
    assert apart > 0.6
    assert together < 0.45


def test_the_scale_of_features_does_not_matter() -> None:
    x, labels = blobs()
    folds = assign_folds(labels)
    one, other = cross_validate(x, labels, folds), cross_validate(1e3 * x + 5, labels, folds)
    assert (one.predictions == other.predictions).mean() > 0.99


def test_constant_features() -> None:
    labels = np.arange(60) % 3
    found = cross_validate(np.ones((60, 4)), labels, assign_folds(labels))
    np.testing.assert_allclose(found.probabilities, 1 / 3, atol=1e-3)


def test_a_class_missing_from_a_folds_training_rows() -> None:
    x, labels = blobs(60)
    labels[0] = 4
    found = cross_validate(x, labels, assign_folds(labels))
    assert found.predictions[0] != 4
    assert np.isfinite(found.loss)


def test_invalid_inputs_are_refused() -> None:
    x, labels = blobs(20)
    with pytest.raises(TransferError, match="1 classes in 5 folds"):
        cross_validate(x, np.zeros(20, int), assign_folds(np.zeros(20, int)))
    x[3] = np.nan
    with pytest.raises(TransferError, match="features of 1 of 20 cross-validated images are NaN"):
        cross_validate(x, labels, assign_folds(labels))


@pytest.mark.skipif(
    not (SHARED / "weights").is_dir(), reason="needs shared/ with photographs and ImageNet weights beside the checkout"
)
def test_it_agrees_with_the_probe_of_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twelve flowers, SqueezeNet: within 1.5 points on 180 images, of which one is half a point."""
    monkeypatch.setenv("TRANSFER_WEIGHTS", str(SHARED / "weights"))
    table = read_images(DataConfig(str(SHARED / "data/flowers12"))).table
    table = table.take(np.concatenate([np.flatnonzero(table.object == c)[:15] for c in range(12)]))
    backbone = new_backbone(BackboneConfig("torchvision:squeezenet1_1"), 0).eval()
    trunk = Trunk(backbone, len(backbone.stages))
    with torch.inference_mode():
        batches = ImageBatches(table.paths, backbone.preprocessing, batch_size=32)
        features = torch.cat([trunk(images) for _, images in batches]).clone()
    labels, folds = torch.from_numpy(table.object), assign_folds(table.object)
    found = cross_validate(features.numpy(), table.object, folds)
    right = 0
    for fold in range(5):
        trains, held = (torch.from_numpy(rows) for rows in (folds != fold, folds == fold))
        heads = Heads([HeadSpec("object", "softmax", table.objects)], backbone.width)
        solve_linear_probe(heads, (features[trains], {"object": labels[trains]}))
        with torch.no_grad():
            right += int((heads(features[held])["object"].argmax(1) == labels[held]).sum())
    assert found.accuracy > 0.8
    assert found.accuracy == pytest.approx(right / len(labels), abs=0.015)
