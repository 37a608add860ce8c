"""Observe images with a pretrained network in one pass: features of every stage, norm inputs, original predictions."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch

from transfer.backbones.backbone import Backbone
from transfer.backbones.variants import AllStagesBackbone
from transfer.data.table import ImageTable
from transfer.feature_cache import TrunkCache
from transfer.heads import HeadSpec
from transfer.heads.heads import Heads
from transfer.model import TransferModel


@dataclass(frozen=True)
class NormStatistics:
    """Statistics by channel of a normalisation layer's inputs: of each image, and of the pretraining data."""

    mean: np.ndarray  # over an image, (N, C)
    square: np.ndarray  # mean square over an image, (N, C)
    running_mean: np.ndarray  # (C,), as stored with the weights
    running_var: np.ndarray  # (C,), as stored with the weights


@dataclass(frozen=True)
class NetworkObservations:
    """A pretrained network's features, norm inputs and predictions for images."""

    features: Mapping[str, np.ndarray]  # pooled, (N, width) by stage, lowest first
    norms: Mapping[str, NormStatistics]  # of each stage's last norm with running statistics, by stage
    probabilities: np.ndarray | None  # of the original classes, (N, K)
    pretraining: str = ""  # what the network was pretrained on, in words, where these were not natural photographs

    def take(self, rows: np.ndarray) -> "NetworkObservations":
        """Return the observations of the images `rows` alone."""
        return NetworkObservations(
            {name: values[rows] for name, values in self.features.items()},
            {name: replace(n, mean=n.mean[rows], square=n.square[rows]) for name, n in self.norms.items()},
            None if self.probabilities is None else self.probabilities[rows],
            self.pretraining,
        )


def observe(
    backbone: Backbone, table: ImageTable, digests: np.ndarray, cache: TrunkCache, workers: int | None = None
) -> NetworkObservations:
    """Return what `backbone` observes in all images of `table`, in one pass; cached images are not passed again.

    `backbone` was loaded with ``classifier="any"``; its network is shared, not copied. `digests` (N,) are the sha256 of
    the images' bytes.
    """
    every = AllStagesBackbone(backbone, with_statistics=True)
    model = TransferModel(every, Heads([HeadSpec("none", classes=("", "-"))], every.width), cut=len(every.stages))
    model.eval()
    feed = cache.feed(model, table.paths, digests, batch_size=256, workers=workers)
    rows = torch.cat([activation for _, activation in feed.batches(np.arange(len(table)))])

    def columns(name: str) -> np.ndarray:
        return rows[:, every.layout[name]].cpu().numpy()

    norms = {}
    for path in every.norms:
        module = every.network.get_submodule(path)
        running = (module.get_buffer(f"running_{statistic}").cpu().numpy() for statistic in ("mean", "var"))
        norms[every.stages[every.stage_of(path)].name] = NormStatistics(
            columns(f"mean {path}"), columns(f"square {path}"), *running
        )
    logits = rows[:, every.layout["logits"]] if "logits" in every.layout else None
    return NetworkObservations(
        {stage.name: columns(stage.name) for stage in every.stages},
        norms,
        None if logits is None else logits.cpu().double().softmax(1).numpy(),
    )
