"""scikit-learn's own estimator checks.

They pass matrices of numbers, which are not images: the estimators refuse them, and their tags exclude these checks. To
check the contract all the same, subclasses here render each row as an image with a grey patch for each number. They
pass every check.
"""

import warnings

import numpy as np
import pytest

pytest.importorskip("sklearn", minversion="1.6", reason="earlier checks have another interface")

from sklearn.exceptions import SkipTestWarning
from sklearn.utils.estimator_checks import check_estimator, estimator_checks_generator
from sklearn.utils.validation import check_is_fitted, validate_data

from transfer.estimator import BackboneFeatures, TransferClassifier

SIDE = 32


def render(x):
    """Rows of numbers -> grey images, (N, 32, 32, 3) uint8."""
    grey = np.rint(255 / (1 + np.exp(-np.asarray(x, float).clip(-50, 50) / 3))).astype(np.uint8)
    patches = int(np.ceil(np.sqrt(grey.shape[1])))
    square = np.zeros((len(grey), patches * patches), np.uint8)
    square[:, : grey.shape[1]] = grey
    of = np.arange(SIDE) * patches // SIDE
    images = square.reshape(-1, patches, patches)[:, of][:, :, of]
    return np.repeat(images[..., None], 3, axis=3)


class Numbers:
    """Takes matrix rows as images, after scikit-learn's validation, which its checks expect."""

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.string = True, False
        return tags


class Classifier(Numbers, TransferClassifier):
    def __init__(self, backbone="test_resnet", *, device="cpu", random_state=None):
        super().__init__(backbone, device=device, random_state=random_state)

    def fit(self, X, y=None):
        X = validate_data(self, X) if y is None else validate_data(self, X, y, ensure_min_samples=2)[0]
        return super().fit(render(X), y)

    def predict_proba(self, X):
        check_is_fitted(self)
        return super().predict_proba(render(validate_data(self, X, reset=False)))

    def score(self, X, y=None):
        return super().score(X, y)

    def predict_domain(self, X):
        check_is_fitted(self)
        return super().predict_domain(render(validate_data(self, X, reset=False)))


class Features(Numbers, BackboneFeatures):
    def __init__(self, backbone="test_resnet", *, device="cpu"):
        super().__init__(backbone, device=device)

    def fit(self, X, y=None):
        return super().fit(render(validate_data(self, X)), y)

    def transform(self, X):
        check_is_fitted(self)
        return super().transform(render(validate_data(self, X, reset=False)))


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Classifier, Features])
def test_all_checks_pass_with_rows_as_images(kind):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = check_estimator(kind(), on_fail=None, on_skip=None)
    failed = {r["check_name"]: repr(r["exception"])[:300] for r in results if r["status"] == "failed"}
    assert not failed, failed
    assert sum(r["status"] == "passed" for r in results) >= 30


@pytest.mark.parametrize("kind", [TransferClassifier, BackboneFeatures])
def test_the_estimators_themselves_require_images(kind):
    with pytest.warns(SkipTestWarning):
        names = [check.func.__name__ for _, check in estimator_checks_generator(kind())]
    assert names == ["check_estimator_cloneable"]
