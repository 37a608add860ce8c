"""The order of several backbones for a data set: by the cross-validated accuracy of a linear probe on each, and LogME.

On sets of hundreds of images the probes of good backbones differ by less than the error of their difference. LogME then
decides: it is computed from all images at once, so that no chance of folds or of single predictions is in it.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from transfer.advice.evidence import FOLDS, group_images, sample_rows
from transfer.advice.rule import measure_gain
from transfer.advice.transferability.crossval import CrossValidation, cross_validate
from transfer.advice.transferability.folds import assign_folds
from transfer.advice.transferability.logme import logme
from transfer.config.train import BackboneConfig, TrainConfig
from transfer.data.label_sets.refusals import needs_objects
from transfer.data.splits import Splits
from transfer.feature_cache import TrunkCache
from transfer.heads import HeadSpec
from transfer.heads.heads import Heads
from transfer.heads.metrics import Z_95
from transfer.model import TransferModel
from transfer.runtime import distributed
from transfer.runtime.device import pick_device
from transfer.semi_supervised.unlabelled_images import compute_pretrained_features
from transfer.training.auto_policy import observed_config
from transfer.training.setup import Images, new_backbone

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RatedBackbone:
    """A backbone and the linear probe on its pooled features."""

    name: str
    probe: CrossValidation
    logme: float


def rank_backbones(
    config: TrainConfig, candidates: Mapping[str, BackboneConfig], images: Images, parts: Splits, cache: TrunkCache
) -> list[dict[str, Any]]:
    """Return a row for each of `candidates`, by name, best first: see :func:`order_backbones`.

    The probes are trained on the labelled images of train and val (at most those of
    :func:`transfer.advice.evidence.sample_rows`), in the same folds. Their features are those that ``transfer train
    --policy linear_probe`` caches. Test images have no part in it.

    Returns
    -------
    list of dict
        ``name``; ``linear_probe``, its accuracy, ``interval`` (95 %) and ``loss`` (nats); ``logme``; ``behind``, its
        accuracy below that of the most accurate, and ``error``, 1.96 standard errors of that difference, image by
        image.

    Raises
    ------
    TransferError
        No objects, or labelled images of fewer than two.
    """
    table, near = images.table, config.data.keep_near_duplicates_together
    if not table.has_objects:
        raise needs_objects(table, "a ranking of backbones")
    learn, nothing = np.sort(np.concatenate([parts.train, parts.val])), np.array([], np.int64)
    rows, _ = sample_rows(table, learn, nothing, config.run.seed)
    labels = table.object[rows]
    copies, groups = group_images(table.take(rows), images.inspection.take(rows), near)
    folds = assign_folds(labels, groups, folds=FOLDS, seed=config.run.seed)
    distinct = np.unique(copies, return_index=True)[1]  # LogME would count a duplicate as further evidence
    rated = []
    for name, candidate in candidates.items():
        features = compute_probe_features(replace(config, backbone=candidate), images, parts, rows, cache)
        probe = cross_validate(features, labels, folds)
        log.info("%s: a linear probe has %.1f%% of %d images correct", name, 100 * probe.accuracy, len(labels))
        rated.append(RatedBackbone(name, probe, logme(features[distinct], labels[distinct])))
    # Processes may differ in the last bits of their features.
    ranked: list[dict[str, Any]] = distributed.broadcast(order_backbones(rated, labels))
    return ranked


def compute_probe_features(
    config: TrainConfig, images: Images, parts: Splits, rows: np.ndarray, cache: TrunkCache
) -> np.ndarray:
    """Return the pooled features (N, width) of `rows` by the backbone of `config`, in float32."""
    levels = images.choose_levels(parts.plain_train)
    backbone = new_backbone(observed_config(config.backbone), config.run.seed, levels=levels)
    heads = Heads([HeadSpec("none", classes=("", "-"))], backbone.width)
    model = TransferModel(backbone, heads).to(pick_device(config.learn.device))
    return compute_pretrained_features(model, cache, images.table, images.inspection.sha256, rows).numpy()


def order_backbones(rated: list[RatedBackbone], labels: np.ndarray) -> list[dict[str, Any]]:
    """Return the rows of :func:`rank_backbones`; `labels` (N,) are those of the cross-validated images.

    Each place goes to the highest LogME among the most accurate of those that remain and all that are not significantly
    behind it: by at most 1.96 standard errors of the difference.
    """
    by_accuracy = sorted(rated, key=lambda each: (-each.probe.accuracy, each.probe.loss))
    most_accurate, remaining, ordered = by_accuracy[0], list(by_accuracy), []
    while remaining:
        near = []
        for each in remaining:
            lead, error = _compare(remaining[0], each, labels)
            if lead <= error:
                near.append(each)
        ordered.append(max(near, key=lambda each: each.logme))
        remaining.remove(ordered[-1])

    def describe(each: RatedBackbone) -> dict[str, Any]:
        behind, error = _compare(most_accurate, each, labels)
        return {
            "name": each.name,
            "linear_probe": each.probe.accuracy,
            "interval": list(each.probe.interval),
            "loss": each.probe.loss,
            "logme": each.logme,
            "behind": behind,
            "error": 0.0 if each is most_accurate else error,
        }

    return [describe(each) for each in ordered]


def _compare(first: RatedBackbone, second: RatedBackbone, labels: np.ndarray) -> tuple[float, float]:
    """Return by how much the probe on `first` is more accurate, and 1.96 standard errors of that difference."""
    lead, sd = measure_gain(first.probe.predictions == labels, second.probe.predictions == labels)
    return lead, Z_95 * sd
