"""TransferClassifier: `transfer train` and `transfer adapt` as a scikit-learn classifier."""

from dataclasses import replace
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from transfer.adaptation.adapt import adapt
from transfer.config.adapt import AdaptConfig
from transfer.config.shared import OnBadImage, RunConfig, ViewConfig
from transfer.config.train import TrainConfig
from transfer.data.duplicates import drop_bad_images, inspect_files
from transfer.data.table import ImageTable, Target
from transfer.errors import did_you_mean
from transfer.estimator.files import InputError, as_value_error, digests, image_files
from transfer.estimator.labels import TARGET, Labels, read_labels
from transfer.evaluation.ensemble import TestSet
from transfer.evaluation.predictions import Predictions
from transfer.feature_cache import TrunkCache
from transfer.training.setup import Images
from transfer.training.train import train

PREDICTED = 64  # images at a time


class TransferClassifier(ClassifierMixin, BaseEstimator):
    """A pretrained backbone that learns the class of images, and carries it from one domain to another.

    ``None`` is what `config` says, or without one what `transfer train` and `transfer adapt` do.

    Parameters
    ----------
    backbone : str, optional
        Such as ``glyphnet`` (the default), ``mobilenetv2_100``, ``torchvision:squeezenet1_1``.
    policy : str, optional
        What learns: ``linear_probe`` (the default), ``partial:2``, ``full``, ...
    heads : {"dual", "joint", "separate"}, optional
        How class and domain are learned together, where `sample_domain` names several domains.
    hidden : tuple of int, optional
        Hidden sizes of an MLP head.
    optimizer, lr, weight_decay, epochs, batch_size, augment : optional
        As on the command line.
    method : str, optional
        How to adapt where `sample_domain` has targets: ``auto`` (the default), ``mcc``, ``dann``, ...
    device : str, optional
    random_state : int, RandomState or None
        Of every random draw; None is 0.
    config : TrainConfig or AdaptConfig, optional
        Everything else; the parameters above go before it, and its data and run folder have no meaning here.

    Attributes
    ----------
    classes_ : ndarray
    models_ : dict of str to TransferModel
    result_ : dict
        As in result.json.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> y = np.arange(12) % 2
    >>> X = (rng.integers(0, 100, (12, 32, 32, 3)) + 150 * y[:, None, None, None]).astype(np.uint8)
    >>> TransferClassifier(device="cpu").fit(X, y).predict(X[:4])
    array([0, 1, 0, 1])
    """

    def __init__(
        self,
        backbone: str | None = None,
        *,
        policy: str | None = None,
        heads: str | None = None,
        hidden: tuple[int, ...] | None = None,
        optimizer: str | None = None,
        lr: float | None = None,
        weight_decay: float | None = None,
        epochs: int | None = None,
        batch_size: int | None = None,
        augment: str | None = None,
        method: str | None = None,
        device: str | None = None,
        random_state: Any = None,
        config: TrainConfig | AdaptConfig | None = None,
    ) -> None:
        self.backbone = backbone
        self.policy = policy
        self.heads = heads
        self.hidden = hidden
        self.optimizer = optimizer
        self.lr = lr
        self.weight_decay = weight_decay
        self.epochs = epochs
        self.batch_size = batch_size
        self.augment = augment
        self.method = method
        self.device = device
        self.random_state = random_state
        self.config = config

    def fit(self, X: Any, y: Any = None, sample_domain: Any = None) -> "TransferClassifier":
        """Learn the class of each image.

        Parameters
        ----------
        X : sequence of paths or PIL images, ndarray (N, H, W, 3), or ImageTable
            uint8, or floats in [0, 1]. A table has its own labels and domains, if none are given.
        y : array-like (N,)
            Classes; of images to adapt to they are not looked at.
        sample_domain : array-like (N,), optional
            Integers, negative for domains to adapt to (as in skada), or names, where domains whose labels are all
            masked (None, NaN, "" or -1) are adapted to. Without targets, a second head learns the domain.

        Raises
        ------
        ValueError
            Bad input or settings.
        """
        with as_value_error(), image_files(X) as paths:
            if isinstance(X, ImageTable):
                y = _names(X.targets["object"]) if y is None else y
                sample_domain = _names(X.targets["domain"]) if sample_domain is None else sample_domain
            labels = read_labels(y, sample_domain, len(paths))
            config = self._config(adapting=bool(labels.sources))
            cache = TrunkCache(config.cache)
            table = _table(paths, {"object": labels.object, "domain": labels.domain})
            images = Images(*drop_bad_images(table, inspect_files(table, disk_cache=cache.disk_cache), _on_bad(config)))
            run = (
                adapt(_between(config, labels), images=images, cache=cache)
                if isinstance(config, AdaptConfig)
                else train(config, images=images, cache=cache)
            )
        self.classes_ = labels.classes
        self.models_, self.result_ = run.models, run.result
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probability of each class, float64 (N, classes), for the images `X`."""
        check_is_fitted(self)
        return self._answers(X)["object"].astype(np.float64)

    def predict(self, X: Any) -> np.ndarray:
        """Return the most likely class (N,) of each of the images `X`."""
        likely = self.predict_proba(X).argmax(1)
        return self.classes_[likely]

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Return the accuracy on the images `X`, whose classes are `y` (of a table, if none are given, its own)."""
        y = _names(X.targets["object"]) if y is None and isinstance(X, ImageTable) else y
        return float(accuracy_score(y, self.predict(X), sample_weight=sample_weight))

    def predict_domain(self, X: Any) -> np.ndarray:
        """Return the most likely domain, str (N,), of each of the images `X`.

        Raises
        ------
        ValueError
            None was learned: `sample_domain` named fewer than two, or one to adapt to.
        """
        check_is_fitted(self)
        specs = {name: spec for model in self.models_.values() for name, spec in model.heads.specs.items()}
        if "domain" not in specs:
            raise InputError("no domain was learned: give fit a sample_domain of several domains, none to adapt to")
        return np.array(specs["domain"].classes)[self._answers(X)["domain"].argmax(1)]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.string = False, True
        return tags

    def _more_tags(self) -> dict[str, Any]:  # scikit-learn 1.5
        return {"X_types": ["string"]}

    def _answers(self, X: Any) -> Predictions:
        with as_value_error(), image_files(X) as paths:
            unknown = {
                name: Target(np.full(len(paths), -1), spec.kind, spec.classes)
                for model in self.models_.values()
                for name, spec in model.heads.specs.items()
            }
            config = self.config or TrainConfig()
            view = getattr(config, "view", ViewConfig())
            rows = np.arange(len(paths))
            test_set = TestSet(_table(paths, unknown), digests(paths), rows, TrunkCache(config.cache), view, PREDICTED)
            return test_set.predict(self.models_)

    def _config(self, adapting: bool) -> TrainConfig | AdaptConfig:
        """Return `config` with the parameters that go before it."""
        kind, other = (AdaptConfig, TrainConfig) if adapting else (TrainConfig, AdaptConfig)
        config = kind() if self.config is None else self.config
        if not isinstance(config, kind):
            there = "targets" if adapting else "no target"
            raise InputError(f"sample_domain has {there}: config must be a {kind.__name__}, not a {other.__name__}")
        for name, places in PLACES.items():
            value, place = getattr(self, name), places.get(kind)
            if value is None or (place is None and name == "method"):
                continue
            if place is None:
                raise InputError(f"{name}={value!r} has no meaning where sample_domain has targets to adapt to")
            part = getattr(config, place)
            _check_choice(part, name, value)
            value = tuple(value) if name == "hidden" else (value,) if name == "method" else value
            config = replace(config, **{place: replace(part, **{name: value})})
        drawn = self.random_state
        seed = drawn if isinstance(drawn, int | np.integer) else 0
        if drawn is not None and seed is not drawn:
            seed = check_random_state(drawn).randint(2**31 - 1)
        config = replace(config, run=RunConfig(seed=int(seed)))
        if isinstance(config, TrainConfig):
            return replace(config, data=replace(config.data, data="X", test=0.0))
        return config


def _everywhere(train: str, adapting: str | None) -> dict[type, str]:
    return {TrainConfig: train} | ({AdaptConfig: adapting} if adapting else {})


PLACES: dict[str, dict[type, str]] = {
    "backbone": _everywhere("backbone", "backbone"),
    "policy": _everywhere("policy", "method"),
    "heads": _everywhere("heads", None),
    "hidden": _everywhere("heads", None),
    "optimizer": _everywhere("learn", None),
    **dict.fromkeys(("lr", "weight_decay", "epochs", "batch_size", "augment", "device"), _everywhere("learn", "steps")),
    "method": {AdaptConfig: "method"},
}
"""In which part of which config a parameter stands, under its own name."""


def _check_choice(part: Any, name: str, value: Any) -> None:
    """Refuse what is none of the values that a setting can have."""
    hint = get_type_hints(type(part))[name]
    known = get_args(hint) if get_origin(hint) is Literal else ()
    if known and value not in known:
        raise InputError(f"{name}={value!r}{did_you_mean(str(value), known)}: one of {', '.join(map(repr, known))}")


def _between(config: AdaptConfig, labels: Labels) -> AdaptConfig:
    shift = replace(config.shift, data="X", source=labels.sources, target=TARGET)
    return replace(config, shift=shift)


def _on_bad(config: TrainConfig | AdaptConfig) -> OnBadImage:
    return (config.data if isinstance(config, TrainConfig) else config.shift).on_bad_image


def _table(paths: np.ndarray, targets: dict[str, Target]) -> ImageTable:
    empty = np.full(len(paths), "")
    blank = Target(np.full(len(paths), -1), "softmax", ())
    return ImageTable(paths, {"object": blank, "domain": blank} | targets, empty, empty, "X")


def _names(target: Target) -> np.ndarray:
    """Return the class names (N,) of a table's target, empty where unknown."""
    return np.array([*target.classes, ""])[target.values]
