"""The images of a data set, labelled or not, with the features of a pretrained network."""

from dataclasses import dataclass, replace

import numpy as np

from transfer.backbones.engines import calibrate
from transfer.config.shared import ImagesConfig
from transfer.config.train import BackboneConfig, CacheConfig
from transfer.data.duplicates import Inspection, drop_bad_images, inspect_files
from transfer.data.images.depths import measure_depths
from transfer.data.images.levels import Levels
from transfer.data.sets.load import load_table
from transfer.data.table import DEFAULT_DOMAIN, ImageTable
from transfer.feature_cache import TrunkCache
from transfer.heads import HeadSpec
from transfer.heads.heads import Heads
from transfer.model import TransferModel
from transfer.runtime.device import pick_device
from transfer.semi_supervised.unlabelled_images import compute_pretrained_features
from transfer.training.setup import Images, new_backbone


@dataclass(frozen=True, eq=False)
class DataSetFeatures:
    """The images of a data set, with their features.

    Parameters
    ----------
    table : ImageTable
        Labels are -1 where they are unknown.
    inspection : Inspection
    features : ndarray of float32, shape (N, width)
        The pooled output of the whole pretrained network.
    levels : Levels
        Of deep images, as the network reads them.
    """

    table: ImageTable
    inspection: Inspection
    features: np.ndarray
    levels: Levels = ()

    def take(self, rows: np.ndarray) -> "DataSetFeatures":
        """Return those of `rows` (indices or a boolean mask)."""
        return DataSetFeatures(self.table.take(rows), self.inspection.take(rows), self.features[rows], self.levels)


def load_data_set_features(
    images: ImagesConfig,
    backbone: BackboneConfig,
    cache: TrunkCache | None = None,
    *,
    device: str = "auto",
    seed: int = 0,
) -> DataSetFeatures:
    """Return the images that `images` names, also of a folder without class folders, with their features.

    Parameters
    ----------
    images : ImagesConfig
        Images that cannot be read are refused, or with ``on_bad_image="skip"`` left out and named.
    backbone : BackboneConfig
    cache : TrunkCache, optional
        By default the user's disk cache.
    device : str
        ``auto``, ``cpu``, ``cuda`` or ``mps``.
    seed : int
        Random seed of a backbone with random weights.

    Raises
    ------
    TransferError
        The data set or the weights cannot be read, or an image is bad.
    """
    cache = cache or TrunkCache(CacheConfig())
    skip = images.on_bad_image == "skip"
    table = load_table(
        images.data,
        images.data_root,
        labels=images.labels,
        skip_bad=skip,
        flat_domain=DEFAULT_DOMAIN,
        corrections=images.corrections,
    )
    table, inspection = drop_bad_images(table, inspect_files(table, disk_cache=cache.disk_cache), images.on_bad_image)
    depths = measure_depths(table.paths, inspection.sha256, cache.disk_cache)
    rows = np.arange(len(table))
    network = new_backbone(backbone, seed)
    levels = Images(table, inspection, depths).choose_levels(rows)  # of all images: nothing is measured on test images
    network.preprocessing = replace(network.preprocessing, levels=levels)
    calibrate(network, table.paths, inspection.sha256)
    unused = Heads([HeadSpec("none", classes=("", "-"))], network.width)  # a model has heads
    model = TransferModel(network, unused, cut=len(network.stages)).to(pick_device(device))
    features = compute_pretrained_features(model, cache, table, inspection.sha256, rows)
    return DataSetFeatures(table, inspection, features.numpy(), levels)
