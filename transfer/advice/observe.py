"""Observe images with a pretrained network in one pass: features of every stage, norm inputs, original predictions."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from transfer.backbones.backbone import Backbone
from transfer.backbones.variants import AllStagesBackbone
from transfer.data.table import ImageTable
from transfer.feature_cache import TrunkCache
from transfer.heads import HeadSpec
from transfer.heads.heads import Heads
from transfer.model import TransferModel


@dataclass(frozen=True)
class NormStatistics:
    """Statistics of a normalisation layer's inputs: of each image, and of the pretraining data.

    Parameters
    ----------
    mean, square : ndarray, shape (N, C)
        Mean and mean square of each channel over an image.
    running_mean, running_var : ndarray, shape (C,)
        Running statistics, as stored with the weights.
    """

    mean: np.ndarray
    square: np.ndarray
    running_mean: np.ndarray
    running_var: np.ndarray


@dataclass(frozen=True)
class NetworkObservations:
    """A pretrained network's features, norm inputs and predictions for images.

    Parameters
    ----------
    features : mapping of str to ndarray, shape (N, width)
        Pooled features of each stage, lowest first.
    norms : mapping of str to NormStatistics
        Of each stage's last norm with running statistics, by stage.
    probabilities : ndarray, shape (N, K), optional
        Of the original classes.
    """

    features: Mapping[str, np.ndarray]
    norms: Mapping[str, NormStatistics]
    probabilities: np.ndarray | None

    def take(self, rows: np.ndarray) -> "NetworkObservations":
        """Return the observations of the images `rows` alone."""
        return NetworkObservations(
            {name: values[rows] for name, values in self.features.items()},
            {
                name: NormStatistics(norm.mean[rows], norm.square[rows], norm.running_mean, norm.running_var)
                for name, norm in self.norms.items()
            },
            None if self.probabilities is None else self.probabilities[rows],
        )


def observe(
    backbone: Backbone, table: ImageTable, digests: np.ndarray, cache: TrunkCache, workers: int | None = None
) -> NetworkObservations:
    """Return what `backbone` observes in all images of `table`, in one pass; cached images are not passed again.

    Parameters
    ----------
    backbone : Backbone
        Loaded with ``classifier="any"``. Its network is shared, not copied.
    digests : ndarray of str, shape (N,)
        sha256 of the images' bytes.
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
        norms[every.stages[every.stage_of(path)].name] = NormStatistics(
            columns(f"mean {path}"), columns(f"square {path}"), _running(module, "mean"), _running(module, "var")
        )
    logits = rows[:, every.layout["logits"]] if "logits" in every.layout else None
    return NetworkObservations(
        {stage.name: columns(stage.name) for stage in every.stages},
        norms,
        None if logits is None else logits.double().softmax(1).cpu().numpy(),
    )


def _running(module: nn.Module, statistic: str) -> np.ndarray:
    value = getattr(module, f"running_{statistic}")
    assert isinstance(value, Tensor)
    return value.detach().cpu().numpy()
