import pickle

import numpy as np
import pytest

from transfer.config.train import TrainConfig, ViewConfig


@pytest.fixture
def fitted(classifier, pixels, objects):
    return classifier().fit(pixels, objects)


def test_sets_of_likely_classes(fitted, classifier, images, pixels, objects):
    sets, p = fitted.predict_set(pixels, coverage=0.9), fitted.predict_proba(pixels)
    assert (sets.shape, sets.dtype) == ((48, 3), bool)
    assert sets[np.arange(48), p.argmax(1)].all()
    np.testing.assert_array_equal(fitted.predict_set(images), sets)
    assert (fitted.predict_set(pixels, coverage=0.5) <= sets).all()
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(fitted)).predict_set(pixels), sets)
    with pytest.raises(ValueError, match="coverage 2: it must be above 0 and below 1"):
        fitted.predict_set(pixels, coverage=2)
    for wrong in (None, "0.9"):
        with pytest.raises(ValueError, match="give a number above 0 and below 1"):
            fitted.predict_set(pixels, coverage=wrong)
    adapted = classifier(method="coral").fit(pixels, objects, sample_domain=np.where(images.domain == 1, -2, 1))
    with pytest.raises(ValueError, match="the run has no prediction sets"):
        adapted.predict_set(pixels)
    with pytest.raises(ValueError, match="no unknown score was fitted"):
        adapted.score_unknown(pixels)


def test_noise_is_stranger_than_images_of_known_classes(fitted, images, pixels):
    found = fitted.score_unknown(pixels)
    noise = np.random.default_rng(0).integers(0, 256, pixels.shape, dtype=np.uint8)
    assert (found.shape, found.dtype) == ((48,), np.float64)
    np.testing.assert_array_equal(fitted.score_unknown(images), found)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(fitted)).score_unknown(pixels), found)
    assert fitted.score_unknown(noise).mean() > found.mean() + 0.1


def test_sample_weights_weigh_the_accuracy(fitted, pixels):
    y, weight = fitted.predict(pixels), np.arange(48.0)
    y[::4] = np.where(y[::4] == "red", "blue", "red")
    right = np.arange(48) % 4 != 0
    assert fitted.score(pixels, y) == pytest.approx(0.75)
    assert fitted.score(pixels, y, sample_weight=weight) == pytest.approx(weight[right].sum() / weight.sum())


def test_views_of_the_config_are_predicted_with(classifier, pixels, objects, fitted):
    """The mean over crops and their mirror images is the same for an image and its mirror image."""
    both = classifier(config=TrainConfig(view=ViewConfig(test_crops=10))).fit(pixels, objects)
    p = both.predict_proba(pixels)
    np.testing.assert_allclose(both.predict_proba(pixels[:, :, ::-1]), p, atol=1e-6)
    assert np.abs(fitted.predict_proba(pixels[:, :, ::-1]) - fitted.predict_proba(pixels)).max() > 1e-4


def test_an_image_to_predict_that_cannot_be_read_is_a_value_error(fitted, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"nothing")
    for name in ("bad.png", "missing.png"):
        with pytest.raises(ValueError, match=name):
            fitted.predict([str(tmp_path / name)])
        with pytest.raises(ValueError, match=name):
            fitted.score_unknown([str(tmp_path / name)])


def test_the_expected_accuracy_needs_no_labels(fitted, classifier, images, pixels, objects):
    found = fitted.expected_accuracy(pixels)
    assert found.n == 48
    assert found.low <= found.accuracy <= found.high
    assert pickle.loads(pickle.dumps(fitted)).expected_accuracy(images).accuracy == pytest.approx(found.accuracy)
    with pytest.raises(ValueError, match="needs 10 or more"):
        fitted.expected_accuracy(pixels[:3])
    adapted = classifier(method="coral").fit(pixels, objects, np.where(images.domain == 1, -1, 1))
    with pytest.raises(ValueError, match="no expected accuracy"):
        adapted.expected_accuracy(pixels)
