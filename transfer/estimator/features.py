"""BackboneFeatures: the pooled features of a frozen backbone, as a scikit-learn transformer with a disk cache."""

from typing import Any, Literal

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from transfer import freeze
from transfer.backbones.engines import calibrate
from transfer.config.shared import DEFAULT_BACKBONE, BackboneConfig, CacheConfig, Device, Engine, OptimConfig
from transfer.data.images.depths import measure_depths
from transfer.data.images.levels import Levels, choose_levels
from transfer.data.pixel_files import image_files
from transfer.errors import TransferError
from transfer.estimator.files import as_value_error, digests
from transfer.feature_cache import TrunkCache
from transfer.freeze import FreezePolicy
from transfer.heads.heads import Heads
from transfer.model import TransferModel
from transfer.runtime.device import pick_device
from transfer.training.setup import new_backbone

FEATURE_BATCH = 64  # images


class BackboneFeatures(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Transforms images to the pooled features of a pretrained backbone.

    Parameters
    ----------
    backbone : str
        For example ``tf_efficientnet_lite0`` (the default), ``mobilenetv2_100``, ``torchvision:squeezenet1_1``.
    truncate : int
        Number of stages removed at the top.
    image_size : int, optional
        Side in pixels (default: that of pretraining).
    crop : {"default", "border"}
        The backbone's own crop, which cuts off what lies at the edge; or the whole image, padded to a square.
    weights : path, optional
        A weights file.
    cache : bool
        Read and write the disk cache: in a grid search, features of an image are computed once.
    device : str
    engine : {"auto", "torch", "onnxruntime", "openvino", "compile", "int8"}
        What runs the network; int8 is calibrated on the images of `fit`.

    Attributes
    ----------
    model_ : TransferModel

    Examples
    --------
    >>> images = np.zeros((2, 32, 32, 3), dtype=np.uint8)
    >>> features = BackboneFeatures("glyphnet", device="cpu").fit(images)
    >>> features.transform(images).shape, features.get_feature_names_out()[0]
    ((2, 160), 'backbonefeatures0')
    """

    def __init__(  # scikit-learn: one parameter per hyper-parameter
        self,
        backbone: str = DEFAULT_BACKBONE,
        *,
        truncate: int = 0,
        image_size: int | None = None,
        crop: Literal["default", "border"] = "default",
        weights: Any = None,
        cache: bool = True,
        device: Device = "auto",
        engine: Engine = "auto",
    ) -> None:
        self.backbone = backbone
        self.truncate = truncate
        self.image_size = image_size
        self.crop = crop
        self.weights = weights
        self.cache = cache
        self.device = device
        self.engine = engine

    def fit(self, X: Any, y: Any = None) -> "BackboneFeatures":
        """Load the backbone; of `X` only the range of deep images matters, and all that int8 needs; `y` is ignored.

        Raises
        ------
        ValueError
            There is no such backbone or crop, or its weights are missing.
        """
        with as_value_error():
            policy = FreezePolicy.parse(f"truncate:{self.truncate}" if self.truncate else "linear_probe")
            config = BackboneConfig(
                self.backbone, self.weights, image_size=self.image_size, crop=self.crop, engine=self.engine
            )
            backbone = new_backbone(config, 0, policy, levels=self._choose_levels(X))
            device = pick_device(OptimConfig(device=self.device).device)
            if self.engine == "int8":
                with image_files(X) as paths:
                    calibrate(backbone, paths, digests(paths))
            model = TransferModel(backbone, Heads([], backbone.width)).to(device)
            model.freeze(freeze.plan("linear_probe", backbone).phases[0])
        self.model_ = model.eval()
        self._n_features_out = backbone.width
        return self

    def _choose_levels(self, X: Any) -> Levels:
        """Return the levels of the images `X`; none without images, or where a file cannot be read."""
        try:
            with image_files(X) as paths:
                return choose_levels(measure_depths(paths))
        except TransferError:  # `fit` took anything before; `transform` raises
            return ()

    def transform(self, X: Any) -> np.ndarray:
        """Return float32 features (N, width) of the images `X`, in any form that :class:`TransferClassifier` takes."""
        check_is_fitted(self)
        with as_value_error(), image_files(X) as paths, torch.inference_mode():
            cache = TrunkCache(CacheConfig(cache=self.cache))
            feed = cache.feed(self.model_, paths, digests(paths), batch_size=FEATURE_BATCH)
            return torch.cat([features.cpu() for _, features in feed.batches(np.arange(len(paths)))]).numpy()

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.string = False, True
        tags.transformer_tags.preserves_dtype = []  # features are float32, whatever the images are
        return tags

    def _more_tags(self) -> dict[str, Any]:  # scikit-learn 1.5
        return {"X_types": ["string"], "preserves_dtype": []}
