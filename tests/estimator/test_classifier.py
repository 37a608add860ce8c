import pickle

import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from transfer.config.adapt import AdaptConfig, ShiftConfig, StepsConfig
from transfer.config.train import DataConfig, LearnConfig, RunConfig, TrainConfig
from transfer.estimator import TransferClassifier
from transfer.runtime.files import get_cache_folder


@pytest.fixture
def fitted(classifier, pixels, objects):
    return classifier().fit(pixels, objects)


def test_it_is_fitted_on_arrays_and_predicts_the_same_for_paths_and_images(fitted, images, pixels, objects):
    assert fitted.classes_.tolist() == ["blue", "green", "red"]
    assert fitted.score(pixels, objects) >= 0.9
    p = fitted.predict_proba(pixels)
    assert p.shape == (48, 3)
    assert p.dtype == np.float64
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-6)
    assert (fitted.classes_[p.argmax(1)] == fitted.predict(pixels)).all()
    np.testing.assert_array_equal(fitted.predict_proba(images.paths.tolist()), p)
    np.testing.assert_array_equal(fitted.predict_proba(images), p)
    assert fitted.score(images) == fitted.score(pixels, objects)
    assert list(get_cache_folder("pixels").iterdir()) == []


def test_the_same_seed_and_a_pickle_give_the_same_predictions(fitted, classifier, pixels, objects):
    p = fitted.predict_proba(pixels)
    np.testing.assert_array_equal(classifier(random_state=0).fit(list(pixels), list(objects)).predict_proba(pixels), p)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(fitted)).predict_proba(pixels), p)


def test_a_table_provides_labels_and_domains(classifier, images):
    both = classifier(heads="joint").fit(images)
    assert (both.predict_domain(images) == np.array(images.domains)[images.domain]).mean() >= 0.9
    assert both.result_["config"]["heads"]["heads"] == "joint"


@pytest.mark.parametrize("named", [False, True])
def test_target_domains_are_adapted_to_without_reading_their_labels(named, classifier, images, pixels, objects):
    striped = images.domain == 1
    y = objects.copy()
    if named:
        domain, y[striped] = np.array(images.domains)[images.domain], ""
    else:
        domain, y[striped] = np.where(striped, -2, 1), "never seen"
    model = classifier(method="coral").fit(pixels, y, sample_domain=domain)
    assert model.classes_.tolist() == ["blue", "green", "red"]
    assert model.result_["command"] == "adapt"
    assert model.result_["selection"]["chosen"].startswith("coral")
    assert model.result_["images"]["target"] == 24
    np.testing.assert_allclose(model.predict_proba(pixels[striped]).sum(1), 1, atol=1e-6)
    with pytest.raises(ValueError, match="no domain was learned"):
        model.predict_domain(pixels)


def test_scikit_learns_tools_take_it(classifier, pixels, objects, images):
    assert clone(classifier(lr=0.5)).get_params()["lr"] == 0.5
    scores = cross_val_score(classifier(), images.paths, objects, cv=2)
    assert scores.min() >= 0.6
    trained = classifier(config=TrainConfig(learn=LearnConfig(probe="trained")), epochs=20, batch_size=8)
    pipeline = make_pipeline(FunctionTransformer(), trained)
    search = GridSearchCV(pipeline, {"transferclassifier__lr": [1e-8, 0.01]}, cv=2).fit(list(pixels), objects)
    assert search.best_params_ == {"transferclassifier__lr": 0.01}


def write_wide(pixels, folder):
    """Return images thrice as wide as high and their paths; their class is seen only at the ends."""
    wide = np.full((len(pixels), 32, 96, 3), 128, np.uint8)
    wide[:, :, :24], wide[:, :, 72:] = pixels[:, :, 4:28], pixels[:, :, 4:28]
    paths = [folder / f"{i}.png" for i in range(len(wide))]
    for image, path in zip(wide, paths, strict=True):
        Image.fromarray(image).save(path)
    return wide, paths


def test_a_border_is_trained_and_predicted_with_whatever_the_form_of_the_images(classifier, pixels, objects, tmp_path):
    wide, paths = write_wide(pixels, tmp_path)
    assert classifier().fit(wide, objects).score(wide, objects) < 0.5
    border = classifier(crop="border").fit(paths, objects)
    assert border.score(paths, objects) >= 0.9
    np.testing.assert_array_equal(border.predict_proba(wide), border.predict_proba(paths))
    assert border.models_[""].backbone.preprocessing.crop_mode == "border"
    assert border.result_["config"]["backbone"]["crop"] == "border"


def test_without_the_cache_nothing_is_cached_and_all_is_the_same(classifier, pixels, objects, tmp_path, monkeypatch):
    monkeypatch.setenv("TRANSFER_CACHE", str(tmp_path))
    plain = classifier(cache=False).fit(pixels, objects)
    p = plain.predict_proba(pixels)
    assert not (tmp_path / "rows").exists()
    np.testing.assert_allclose(classifier().fit(pixels, objects).predict_proba(pixels), p, atol=1e-6)
    assert (tmp_path / "rows").exists()


def test_probabilities_are_calibrated_unless_they_shall_not_be(classifier, pixels, objects):
    with_temperature, without = (classifier(calibrate=value).fit(pixels, objects) for value in (None, False))
    assert set(with_temperature.result_["temperatures"]) == {"object"}
    assert without.result_["temperatures"] == {}


def test_parameters_override_the_config(classifier):
    config = TrainConfig(learn=LearnConfig(lr=0.25, epochs=7))
    got = classifier(config=config, lr=0.5, epochs=None, hidden=[4], random_state=3)._config(adapting=False)
    assert (got.learn.lr, got.learn.epochs, got.heads.hidden, got.run.seed) == (0.5, 7, (4,), 3)
    adapting = classifier(config=AdaptConfig(steps=StepsConfig(lr=0.25)), method="mcc")._config(adapting=True)
    assert (adapting.steps.lr, adapting.steps.epochs, adapting.method.method) == (0.25, 2, ("mcc",))


@pytest.mark.parametrize(
    ("settings", "adapting", "message"),
    [
        ({"policy": "linear_prob"}, False, "did you mean 'linear_probe'"),
        ({"optimizer": "adamm"}, False, "did you mean 'adam"),
        ({"heads": "duel"}, False, "did you mean 'dual'"),
        ({"augment": "flop"}, False, "did you mean 'flip'"),
        ({"crop": "bordr"}, False, "did you mean 'border'"),
        ({"image_size": 0}, False, "image-size 0"),
        ({"weights": "nowhere.safetensors"}, False, "nowhere.safetensors"),
        ({"epochs": 0}, False, "epochs 0"),
        ({"method": "corall"}, True, "did you mean 'coral'"),
        ({"heads": "joint"}, True, "heads='joint' has no effect if sample_domain has target domains"),
        ({"config": TrainConfig()}, True, "config must be a AdaptConfig"),
        ({"config": AdaptConfig()}, False, "config must be a TrainConfig"),
    ],
)
def test_bad_settings_are_value_errors(settings, adapting, message, classifier, pixels, objects):
    domain = np.where(np.arange(48) < 24, 1, -1) if adapting else None
    with pytest.raises(ValueError, match=message):
        classifier(**settings).fit(pixels, objects, domain)


def test_an_unknown_backbone_and_an_unfitted_classifier(pixels, objects):
    with pytest.raises(ValueError, match="did you mean 'glyphnet'"):
        TransferClassifier("glyphnett").fit(pixels, objects)
    for ask in (TransferClassifier().predict, TransferClassifier().predict_proba, TransferClassifier().predict_domain):
        with pytest.raises(NotFittedError):
            ask(pixels)


def test_a_random_state_draws_the_seed(classifier):
    def seed(state):
        return classifier(random_state=state)._config(adapting=False).run.seed

    same = np.random.RandomState(5)
    first, second = seed(same), seed(same)
    assert first == seed(np.random.RandomState(5)) == np.random.RandomState(5).randint(2**31 - 1)
    assert len({first, second, seed(np.random.RandomState(6))}) == 3
    assert (seed(None), seed(np.int64(3)), seed(3)) == (0, 3, 3)


def test_its_tags_say_that_it_takes_paths_and_several_labels():
    tags = TransferClassifier().__sklearn_tags__()
    assert (tags.input_tags.two_d_array, tags.input_tags.string) == (False, True)
    assert tags.classifier_tags.multi_label


@pytest.mark.parametrize("adapting", [False, True])
def test_the_config_says_what_becomes_of_bad_images(classifier, images, objects, tmp_path, adapting):
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    paths, y = [*images.paths.tolist(), str(tmp_path / "bad.png")], [*objects, "red"]
    domain = np.append(np.where(images.domain == 1, -1, 1), 1) if adapting else None
    with pytest.raises(ValueError, match=r"bad\.png"):
        classifier(method="coral" if adapting else None).fit(paths, y, domain)
    skip = AdaptConfig(ShiftConfig(on_bad_image="skip")) if adapting else TrainConfig(DataConfig(on_bad_image="skip"))
    model = classifier(config=skip, method="coral" if adapting else None).fit(paths, y, domain)
    assert model.predict(images.paths.tolist()).shape == (48,)


@pytest.mark.parametrize("adapting", [False, True])
def test_images_and_test_share_of_the_config_are_ignored(classifier, pixels, objects, images, adapting, tmp_path):
    config = TrainConfig(DataConfig("nowhere", test=0.5, val=0.25), run=RunConfig(out=tmp_path / "run"))
    domain = None
    if adapting:
        config = AdaptConfig(ShiftConfig("nowhere", source=("nobody",), target="nothing"))
        domain = np.where(images.domain == 1, -1, 1)
    result = classifier(config=config, method="coral" if adapting else None).fit(pixels, objects, domain).result_
    counts = result["images"]
    assert result["config"]["shift" if adapting else "data"]["data"] == "X"
    assert counts["target" if adapting else "test"] == (24 if adapting else 0)
    assert adapting or counts["train"] + counts["val"] == 48
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("mask", [None, "", -1, np.nan])
def test_images_without_a_class_are_unlabelled(classifier, pixels, objects, monkeypatch, mask):
    monkeypatch.setattr("transfer.semi_supervised.choose.count_required_errors", lambda agreement: -np.inf)
    y, hidden = objects.astype(object), np.arange(48) % 8 > 3
    y[hidden] = mask
    if mask == -1:
        y = np.where(hidden, -1, np.unique(objects, return_inverse=True)[1])
        assert classifier().fit(pixels, y).classes_.tolist() == [-1, 0, 1, 2]  # a class, unless it is said to be none
    else:
        with pytest.raises(ValueError, match=r"y lacks labels .* unlabelled='rest'"):
            classifier().fit(pixels, y)
    model = classifier(unlabelled="rest").fit(pixels, y)
    assert model.classes_.tolist() == ([0, 1, 2] if mask == -1 else ["blue", "green", "red"])
    record = model.result_["unlabelled"]["object"]
    assert record["unlabelled"] == 24
    assert record["pseudo_labelled"] > 0
    truth = np.unique(objects, return_inverse=True)[1] if mask == -1 else objects
    assert model.score(pixels, truth) >= 0.9


def test_a_folder_of_unlabelled_images(classifier, pixels, objects, folder):
    model = classifier(unlabelled=str(folder / "plain"), config=TrainConfig()).fit(pixels[24:], objects[24:])
    assert model.result_["unlabelled"]["object"]["unlabelled"] == 24
    numbers = np.unique(objects, return_inverse=True)[1][24:] - 1
    model = classifier(unlabelled=str(folder / "plain")).fit(pixels[24:], numbers)
    assert model.classes_.tolist() == [-1, 0, 1]  # the folder has the unlabelled images, so -1 is a class


def test_unlabelled_images_have_no_effect_in_adaptation(classifier, pixels, objects, images):
    with pytest.raises(ValueError, match="unlabelled='rest' has no effect if sample_domain has target domains"):
        classifier(unlabelled="rest").fit(pixels, objects, sample_domain=np.where(images.domain == 1, -2, 1))
    with pytest.raises(ValueError, match="no labels to train on"):
        classifier(unlabelled="rest").fit(pixels, np.full(48, -1))
    with pytest.raises(ValueError, match=r"only one class: .*; -1 is read as no label"):
        classifier(unlabelled="rest").fit(pixels, np.tile([-1, 1], 24))


@pytest.mark.parametrize("adapting", [False, True])
def test_a_class_of_which_no_image_can_be_read_is_no_answer(adapting, classifier, images, objects, tmp_path):
    paths, domains = images.paths.tolist(), None
    for row in np.flatnonzero(objects == "green"):
        paths[row] = str(tmp_path / f"{row}.png")
        (tmp_path / f"{row}.png").write_bytes(b"broken")
    config = TrainConfig(DataConfig(on_bad_image="skip"))
    if adapting:
        config = AdaptConfig(ShiftConfig(on_bad_image="skip"), steps=StepsConfig(epochs=1))
        domains = np.where(images.domain == 0, 0, -1)
    with pytest.warns(UserWarning, match="no training image is left of green"):
        fitted = classifier(config=config).fit(paths, objects, domains)
    assert fitted.classes_.tolist() == ["blue", "red"]
    assert fitted.predict_proba(images).shape == (48, 2)
    readable = objects != "green"
    assert (fitted.predict(images)[readable] == objects[readable]).mean() > 0.6
