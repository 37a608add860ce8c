"""One pass of a pretrained network over images: the features of every stage, what norms are given, what it answers."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from transfer.backbones.backbone import Backbone
from transfer.backbones.variants import EveryStage
from transfer.data.table import ImageTable
from transfer.feature_cache import TrunkCache
from transfer.heads.heads import Heads, HeadSpec
from transfer.model import TransferModel


@dataclass(frozen=True)
class Norm:
    """What a normalisation layer is given by each image, and what it was given by the pretraining data.

    Parameters
    ----------
    mean, square : ndarray, shape (N, C)
        Per channel the mean and the mean square over an image.
    running_mean, running_var : ndarray, shape (C,)
        As kept with the weights.
    """

    mean: np.ndarray
    square: np.ndarray
    running_mean: np.ndarray
    running_var: np.ndarray


@dataclass(frozen=True)
class Observations:
    """What a pretrained network makes of images.

    Parameters
    ----------
    features : mapping of str to ndarray, shape (N, width)
        Pooled features of each stage, lowest first.
    norms : mapping of str to Norm
        The last one of each stage that has any with running statistics, by the stage's name.
    probabilities : ndarray, shape (N, K), optional
        Of the original classes.
    """

    features: Mapping[str, np.ndarray]
    norms: Mapping[str, Norm]
    probabilities: np.ndarray | None

    def take(self, rows: np.ndarray) -> "Observations":
        """Return what was made of the images `rows` alone."""
        return Observations(
            {name: values[rows] for name, values in self.features.items()},
            {
                name: Norm(norm.mean[rows], norm.square[rows], norm.running_mean, norm.running_var)
                for name, norm in self.norms.items()
            },
            None if self.probabilities is None else self.probabilities[rows],
        )


def observe(
    backbone: Backbone, table: ImageTable, digests: np.ndarray, cache: TrunkCache, workers: int | None = None
) -> Observations:
    """Return what `backbone` makes of all images of `table`: at most one pass, none over what `cache` has.

    Parameters
    ----------
    backbone : Backbone
        Loaded with ``classifier="any"``. Its network is taken over.
    digests : ndarray of str, shape (N,)
        sha256 of the images' bytes.
    """
    every = EveryStage(backbone, observed=True)
    model = TransferModel(every, Heads([HeadSpec("none", "softmax", ("", "-"))], every.width), cut=len(every.stages))
    model.eval()
    feed = cache.feed(model, table.paths, digests, batch_size=256, workers=workers)
    rows = torch.cat([activation for _, activation in feed.batches(np.arange(len(table)))])

    def columns(name: str) -> np.ndarray:
        return rows[:, every.layout[name]].cpu().numpy()

    norms = {}
    for path in every.norms:
        module = every.network.get_submodule(path)
        norms[every.stages[every.stage_of(path)].name] = Norm(
            columns(f"mean {path}"), columns(f"square {path}"), _kept(module, "mean"), _kept(module, "var")
        )
    logits = rows[:, every.layout["logits"]] if "logits" in every.layout else None
    return Observations(
        {stage.name: columns(stage.name) for stage in every.stages},
        norms,
        None if logits is None else logits.double().softmax(1).cpu().numpy(),
    )


def _kept(module: nn.Module, what: str) -> np.ndarray:
    value = getattr(module, f"running_{what}")
    assert isinstance(value, Tensor)
    return value.detach().cpu().numpy()
