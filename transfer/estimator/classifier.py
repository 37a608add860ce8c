"""TransferClassifier: `transfer train` and `transfer adapt` as a scikit-learn classifier."""

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
from sklearn.utils import check_random_state

from transfer.adaptation.adapt import AdaptRun, adapt
from transfer.config.adapt import AdaptConfig
from transfer.config.shared import RunConfig
from transfer.config.train import TrainConfig
from transfer.data.conflicts import drop_conflicts
from transfer.data.duplicates import drop_bad_images, inspect_files
from transfer.data.images.depths import measure_depths
from transfer.data.label_sets.combinations import use_label_sets
from transfer.data.pixel_files import image_files
from transfer.data.table import ImageTable
from transfer.data.unlabelled import REST, add_unlabelled_folder
from transfer.errors import list_examples
from transfer.estimator.files import as_value_error
from transfer.estimator.fitted_classifier import FittedClassifier
from transfer.estimator.labels import TARGET, ImageLabels, read_labels
from transfer.estimator.settings import override_config
from transfer.estimator.tables import get_class_names, get_labels, make_image_table
from transfer.feature_cache import TrunkCache
from transfer.training.setup import Images
from transfer.training.train import TrainRun, train


class TransferClassifier(FittedClassifier):
    """An image classifier on a pretrained backbone, with domain adaptation.

    A parameter that is None takes its value from `config`, by default the defaults of `transfer train` and
    `transfer adapt`.

    Parameters
    ----------
    backbone : str, optional
        For example ``tf_efficientnet_lite0`` (the default), ``mobilenetv2_100``, ``torchvision:squeezenet1_1``.
    weights : path, optional
        A weights file of the backbone.
    image_size : int, optional
        Side in pixels (default: that of pretraining).
    crop : {"default", "border"}, optional
        The backbone's own crop, which cuts off what lies at the edge; or the whole image, padded to a square.
    policy : str, optional
        The freeze policy: ``linear_probe`` (the default), ``partial:2``, ``full``, ...
    heads : {"dual", "joint", "separate"}, optional
        How class and domain are predicted if `sample_domain` has several domains.
    hidden : tuple of int, optional
        Hidden sizes of an MLP head.
    optimizer, lr, weight_decay, epochs, batch_size, augment : optional
        As on the command line.
    unlabelled : str, optional
        ``"rest"``: images whose class is -1, None, NaN or "" are unlabelled and count in training, by labels propagated
        from the others; or a folder of further images without labels. See ``transfer train --unlabelled``.
    calibrate : bool, optional
        Scale logits by temperatures, so that probabilities are as high as the accuracy (the default).
    method : str, optional
        The adaptation method if `sample_domain` has target domains: ``auto`` (the default), ``mcc``, ``dann``, ...
    device : str, optional
    cache : bool, optional
        Read and write the disk cache of features (the default).
    random_state : int, RandomState or None
        Random seed; None is 0.
    config : TrainConfig or AdaptConfig, optional
        All other settings, such as the share of validation images or what happens to images that cannot be decoded:
        ``TrainConfig(DataConfig(val=0.1, on_bad_image="skip"))``. The parameters above override it; the images that it
        names, its test share and its run folder are ignored.

    Attributes
    ----------
    classes_ : ndarray
        Sorted; without classes of which bad or conflicting images leave no training image. Of an indicator matrix, the
        names or numbers of its columns.
    models_ : dict of str to TransferModel
    result_ : dict
        The content of result.json.
    uncertainty_ : Uncertainty or None
        What prediction sets and unknown scores are made from.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> y = np.arange(12) % 2
    >>> X = (rng.integers(0, 100, (12, 32, 32, 3)) + 150 * y[:, None, None, None]).astype(np.uint8)
    >>> TransferClassifier("glyphnet", device="cpu").fit(X, y).predict(X[:4])
    array([0, 1, 0, 1])
    """

    def __init__(  # scikit-learn: one parameter per hyper-parameter
        self,
        backbone: str | None = None,
        *,
        weights: Any = None,
        image_size: int | None = None,
        crop: str | None = None,
        policy: str | None = None,
        heads: str | None = None,
        hidden: tuple[int, ...] | None = None,
        optimizer: str | None = None,
        lr: float | None = None,
        weight_decay: float | None = None,
        epochs: int | None = None,
        batch_size: int | None = None,
        augment: str | None = None,
        unlabelled: str | None = None,
        calibrate: bool | None = None,
        method: str | None = None,
        device: str | None = None,
        cache: bool | None = None,
        random_state: Any = None,
        config: TrainConfig | AdaptConfig | None = None,
    ) -> None:
        self.backbone = backbone
        self.weights = weights
        self.image_size = image_size
        self.crop = crop
        self.policy = policy
        self.heads = heads
        self.hidden = hidden
        self.optimizer = optimizer
        self.lr = lr
        self.weight_decay = weight_decay
        self.epochs = epochs
        self.batch_size = batch_size
        self.augment = augment
        self.unlabelled = unlabelled
        self.calibrate = calibrate
        self.method = method
        self.device = device
        self.cache = cache
        self.random_state = random_state
        self.config = config

    def fit(self, X: Any, y: Any = None, sample_domain: Any = None) -> "TransferClassifier":
        """Train on images and their classes, and adapt to target domains if there are any.

        Parameters
        ----------
        X : sequence of paths or PIL images, ndarray (N, H, W, 3), or ImageTable
            uint8, or floats in [0, 1]. A table also provides labels and domains that are not given.
        y : array-like (N,), or of several labels an image (N, labels), or sequence of sets or tuples of labels
            Classes; those of target domains are never read. With `unlabelled`, None, NaN or "" is no class, and with
            ``"rest"`` -1 is none either. An indicator matrix has 1 and 0, and -1 or NaN where it is unknown whether an
            image shows the label.
        sample_domain : array-like (N,), optional
            Integers, negative for target domains (as in skada), or names; a named domain whose labels are all masked
            (None, NaN, "" or -1) is a target. Without target domains, a second head predicts the domain.

        Raises
        ------
        ValueError
            Bad input or settings.
        """
        with as_value_error(), image_files(X) as paths:
            if isinstance(X, ImageTable):
                y = get_labels(X) if y is None else y
                sample_domain = get_class_names(X.targets["domain"]) if sample_domain is None else sample_domain
            given = self.config.data.unlabelled if isinstance(self.config, TrainConfig) else None
            given = self.unlabelled or given
            labels = read_labels(y, sample_domain, len(paths), unlabelled=given is not None, minus_one=given == REST)
            config = self._config(adapting=bool(labels.sources))
            cache = TrunkCache(config.cache)
            table = use_label_sets(make_image_table(paths, labels.targets))
            if isinstance(config, TrainConfig):
                table = add_unlabelled_folder(table, config.data.unlabelled)
            rule = (config.data if isinstance(config, TrainConfig) else config.shift).on_bad_image
            found = drop_bad_images(table, inspect_files(table, disk_cache=cache.disk_cache), rule)
            table, inspection = drop_conflicts(*found, hidden=TARGET)
            images = Images(table, inspection, measure_depths(table.paths, inspection.sha256, cache.disk_cache))
            run: TrainRun | AdaptRun
            if isinstance(config, TrainConfig):
                run = train(config, images=images, cache=cache)
            else:
                shift = replace(config.shift, data="X", source=labels.sources, target=TARGET)
                run = adapt(replace(config, shift=shift), images=images, cache=cache)
        self.models_, self.result_, self.uncertainty_ = run.models, run.result, run.uncertainty
        self.classes_ = self._find_trained(labels)
        return self

    def _find_trained(self, labels: ImageLabels) -> np.ndarray:
        """Return those of the classes, as they were given, that the object head predicts; warn of the others."""
        if labels.several is not None:
            return labels.classes
        predicted = self._specs()["object"].classes
        trained = np.isin(np.array(labels.object.classes), predicted)
        if not trained.all():
            lost = list_examples([str(label) for label in labels.classes[~trained]])
            message = f"y: no training image is left of {lost}: the classifier never predicts such a class"
            warnings.warn(message, UserWarning, stacklevel=3)
        return labels.classes[trained]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.string = False, True
        tags.classifier_tags.multi_label = True
        return tags

    def _more_tags(self) -> dict[str, Any]:  # scikit-learn 1.5
        return {"X_types": ["string"]}

    def _config(self, adapting: bool) -> TrainConfig | AdaptConfig:
        """Return `config`, overridden by the parameters."""
        config = override_config(self.config, self.get_params(deep=False), adapting=adapting)
        state = self.random_state
        seed = state if isinstance(state, int | np.integer) else 0
        if state is not None and seed is not state:
            seed = check_random_state(state).randint(2**31 - 1)
        config = replace(config, run=RunConfig(seed=int(seed)))
        if isinstance(config, TrainConfig):
            return replace(config, data=replace(config.data, data="X", test=0.0))
        return config
