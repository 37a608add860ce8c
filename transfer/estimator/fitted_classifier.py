"""Predictions of a fitted classifier: classes, sets of classes, how strange an image is, domains."""

from abc import ABC, abstractmethod
from numbers import Real
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils.validation import check_is_fitted

from transfer.config.adapt import AdaptConfig
from transfer.config.shared import ViewConfig
from transfer.config.train import TrainConfig
from transfer.data.pixel_files import InputError, image_files
from transfer.data.table import ImageTable
from transfer.estimator.files import as_value_error, digests
from transfer.estimator.label_sets import LABELS_HEAD, to_indicators
from transfer.estimator.tables import get_labels, make_image_table
from transfer.evaluation.averages.ensemble import TestSet
from transfer.evaluation.label_free.expected_accuracy import ExpectedAccuracy
from transfer.evaluation.label_free.images import expect_accuracy_of_files
from transfer.evaluation.predictions import Predictions
from transfer.evaluation.uncertainty.caution import choose_caution
from transfer.evaluation.uncertainty.record import Uncertainty
from transfer.feature_cache import TrunkCache
from transfer.heads import HeadSpec
from transfer.heads.multilabel.head import find_thresholds
from transfer.model import TransferModel

PREDICTION_BATCH = 64  # images


class FittedClassifier(ClassifierMixin, BaseEstimator, ABC):
    """What a classifier of images predicts once it is fitted.

    Attributes
    ----------
    classes_ : ndarray
    models_ : dict of str to TransferModel
    result_ : dict
    uncertainty_ : Uncertainty or None
        See :class:`~transfer.estimator.classifier.TransferClassifier`.
    """

    classes_: np.ndarray
    models_: dict[str, TransferModel]
    result_: dict[str, Any]
    uncertainty_: Uncertainty | None

    @abstractmethod
    def _config(self, adapting: bool) -> TrainConfig | AdaptConfig:
        """Return the settings of a run."""

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probability of each class, or label, float64 (N, classes), for the images `X`."""
        check_is_fitted(self)
        name = LABELS_HEAD if LABELS_HEAD in self._specs() else "object"
        return self._predictions(X)[name].astype(np.float64)

    def predict(self, X: Any) -> np.ndarray:
        """Return the most likely class (N,) of each of the images `X`.

        Of several labels an image, it is the indicator matrix (N, labels) of those from their thresholds on.
        """
        p = self.predict_proba(X)
        if LABELS_HEAD in self._specs():
            return (p >= find_thresholds(self._specs()[LABELS_HEAD])).astype(np.int64)
        return self.classes_[p.argmax(1)]

    def predict_set(self, X: Any, coverage: float = 0.9) -> np.ndarray:
        """Return which classes are likely for each of the images `X`, bool (N, classes) in the order of `classes_`.

        A row contains the true class this often, for images like those that were fitted: conformal prediction sets.

        Parameters
        ----------
        X : as in :meth:`fit`
        coverage : float
            Above 0 and below 1.

        Raises
        ------
        ValueError
            `coverage` is out of range, or there are no such sets: it adapted to another domain, or nothing was held
            out.
        """
        check_is_fitted(self)
        with as_value_error():
            if LABELS_HEAD in self._specs():
                raise InputError("there are no prediction sets of several labels an image: predict gives these")
            if not isinstance(coverage, Real):
                raise InputError(f"coverage is {coverage!r}: give a number above 0 and below 1")
            caution = choose_caution(self.uncertainty_, coverage, 0.0)
        assert caution
        return caution.sets["object"].predict_sets(self.predict_proba(X), coverage)

    def score_unknown(self, X: Any) -> np.ndarray:
        """Return how strange each of the images `X` is, float64 (N,): the share of known images that are less strange.

        Near 1 for images of no known class: 0.99 is stranger than 99 % of images of known classes that were not fitted.

        Raises
        ------
        ValueError
            There is no such score: it adapted to another domain, or nothing was held out.
        """
        check_is_fitted(self)
        if self.uncertainty_ is None or self.uncertainty_.unknown is None:
            why = "several labels an image have none" if LABELS_HEAD in self._specs() else "no image was held out"
            raise InputError(f"no unknown score was fitted: it adapted to another domain, or {why}")
        with as_value_error(), image_files(X) as paths:
            return self._test_set(paths).score_unknown(self.models_, self.uncertainty_.unknown)

    def expected_accuracy(self, X: Any) -> ExpectedAccuracy:
        """Return how often :meth:`predict` is expected to be right about the images `X`, which need no labels.

        Parameters
        ----------
        X : as in :meth:`fit`, at least ten images

        Returns
        -------
        ExpectedAccuracy
            See :meth:`transfer.evaluation.finished_run.FinishedRun.expected_accuracy`.

        Raises
        ------
        ValueError
            There are fewer images; or it adapted to another domain, predicts several labels an image, or nothing was
            held out.
        """
        check_is_fitted(self)
        references = self.uncertainty_.accuracy if self.uncertainty_ else {}
        with as_value_error(), image_files(X) as paths:
            return expect_accuracy_of_files(self.models_, paths.tolist(), references, "object")

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Return the accuracy on the images `X` with classes `y`, by default those of the table `X`.

        Of several labels an image, an image is correct if all of them are, as in scikit-learn.
        """
        check_is_fitted(self)
        y = get_labels(X) if y is None and isinstance(X, ImageTable) else y
        if LABELS_HEAD in self._specs():
            with as_value_error():
                y = to_indicators(y, self.classes_)
        return float(accuracy_score(y, self.predict(X), sample_weight=sample_weight))

    def predict_domain(self, X: Any) -> np.ndarray:
        """Return the most likely domain, str (N,), of each of the images `X`.

        Raises
        ------
        ValueError
            There is no domain head: `sample_domain` had fewer than two domains, or a target domain.
        """
        check_is_fitted(self)
        specs = self._specs()
        if "domain" not in specs:
            raise InputError("no domain was learned: give fit a sample_domain of several domains and no target")
        return np.array(specs["domain"].classes)[self._predictions(X)["domain"].argmax(1)]

    def _specs(self) -> dict[str, HeadSpec]:
        """Return what each head predicts, by its name."""
        return {name: spec for model in self.models_.values() for name, spec in model.heads.specs.items()}

    def _predictions(self, X: Any) -> Predictions:
        with as_value_error(), image_files(X) as paths:
            return self._test_set(paths).predict(self.models_)

    def _test_set(self, paths: np.ndarray) -> TestSet:
        """Return the images at `paths`, whose targets are unknown."""
        unknown = {name: spec.head_kind.unknown_target(spec, len(paths)) for name, spec in self._specs().items()}
        config = self._config(adapting=self.result_["command"] == "adapt")
        view = getattr(config, "view", ViewConfig())
        rows, cache = np.arange(len(paths)), TrunkCache(config.cache)
        return TestSet(make_image_table(paths, unknown), digests(paths), rows, cache, view, PREDICTION_BATCH)
