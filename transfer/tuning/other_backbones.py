"""Whether another backbone whose weights are on this machine has better features for the images of an advice."""

import logging
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np

from transfer.advice.observe import observe
from transfer.advice.rule import measure_gain
from transfer.advice.transferability.crossval import cross_validate
from transfer.backbones import registry, weight_paths
from transfer.backbones.weight_packages import list_weight_packages
from transfer.config.train import BackboneConfig, TrainConfig
from transfer.errors import TransferError
from transfer.feature_cache import TrunkCache
from transfer.heads.metrics import Z_95
from transfer.runtime.device import pick_device
from transfer.training.auto_policy import PolicyAdvice, observed_config
from transfer.training.setup import Images, new_backbone

MAX_OTHER_BACKBONES = 3
MAX_COMPARED_IMAGES = 300  # labelled images that another backbone is measured on: seconds, not minutes

log = logging.getLogger(__name__)


def list_local_backbones() -> list[str]:
    """Return the backbones whose weights need no download: the default, installed packages, the bundle, the store."""
    packages = [package.backbones[0] for package in list_weight_packages() if package.installed]
    names = [name for name in packages if name == BackboneConfig().backbone]
    return list(dict.fromkeys([*names, *packages, weight_paths.BUNDLE.name, *_iter_store()]))


def compare_other_backbones(
    config: TrainConfig, found: PolicyAdvice, images: Images, cache: TrunkCache
) -> list[dict[str, Any]]:
    """Return a row for each other backbone on this machine, up to ``MAX_OTHER_BACKBONES``.

    The first is the best, or one within the error of it that comes before it in :func:`list_local_backbones`.

    A linear probe of its last features is cross-validated on a sample of the rows of `found`, and compared with the
    advised frozen probe there, image by image, which was trained on more. It is ``better`` where it leads by more than
    1.96 standard errors of the difference. Nothing is measured where no lead could be as large.

    Returns
    -------
    list of dict
        ``name``, ``weights``, ``accuracy`` of its probe, ``against`` (of the advised probe on the same images),
        ``images``, ``error`` (1.96 standard errors) and ``better``.
    """
    probes, labels = found.evidence.probes, found.evidence.labels
    policy = max(probes, key=lambda name: probes[name].accuracy)
    step = -(-len(labels) // MAX_COMPARED_IMAGES)
    sample = np.arange(0, len(labels), step)
    correct, label = (probes[policy].predictions == labels)[sample], labels[sample]
    if (1 - correct.mean()) <= Z_95 * measure_gain(np.ones_like(correct), correct)[1]:
        return []
    table, inspection = images.table.take(found.rows[sample]), images.inspection.take(found.rows[sample])
    levels = images.choose_levels(found.rows)
    own = registry.resolve(config.backbone.backbone)[1].partition(".")[0]
    names = [name for name in list_local_backbones() if weight_paths.strip_provider(name).partition(".")[0] != own]
    rows = []
    for name in names[:MAX_OTHER_BACKBONES]:
        try:
            named = observed_config(BackboneConfig(name, engine=config.backbone.engine))
            backbone = new_backbone(named, config.run.seed, classifier="any", levels=levels)
        except TransferError as error:
            log.warning("not compared with %s: %s", name, error)
            continue
        backbone = backbone.to(pick_device(config.learn.device))
        features = observe(backbone, table, inspection.sha256, cache, config.learn.workers).features
        probe = cross_validate(list(features.values())[-1], label, probes[policy].folds[sample])
        gain, sd = measure_gain(probe.predictions == label, correct)
        rows.append(
            {
                "name": name,
                "weights": backbone.weights,
                "accuracy": probe.accuracy,
                "against": float(correct.mean()),
                "images": len(label),
                "error": Z_95 * sd,
                "better": bool(gain > Z_95 * sd),
            }
        )
    return prefer_first(rows)


def prefer_first(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return `rows` with the first whose accuracy is within its error of the best in front, then by accuracy.

    Examples
    --------
    >>> rows = [{"name": n, "accuracy": a, "error": 0.02} for n, a in (("a", 0.8), ("b", 0.95), ("c", 0.96))]
    >>> [row["name"] for row in prefer_first(rows)]
    ['b', 'c', 'a']
    """
    most = max((row["accuracy"] for row in rows), default=0.0)
    first = next((row for row in rows if row["accuracy"] >= most - row["error"]), None)
    return sorted(rows, key=lambda row: (row is not first, -row["accuracy"]))


def use_other_backbone(config: TrainConfig, name: str) -> TrainConfig:
    """Return `config` with the backbone `name`, its own weights and image size, and ``--policy auto``."""
    policy = replace(config.policy, policy="auto")
    return replace(config, backbone=BackboneConfig(name), policy=policy)


def _iter_store() -> Iterator[str]:
    """Yield the names of files in the store that a provider knows."""
    folder = weight_paths.find_store()
    for file in sorted(folder.iterdir()) if folder else ():
        if file.suffix in weight_paths.SUFFIXES:
            for name in (file.stem, f"torchvision:{file.stem}"):
                with suppress(TransferError):  # a file of something else
                    registry.resolve(name)
                    yield name
                    break
