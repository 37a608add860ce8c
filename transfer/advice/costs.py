"""What training costs on this machine, from a few images: seconds to look at one, and to learn from one."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from transfer import freeze
from transfer.backbones.backbone import Backbone
from transfer.data.images.batches import ImageBatches
from transfer.heads.heads import Heads, HeadSpec
from transfer.model import TransferModel
from transfer.runtime.malloc import kept

IMAGES = 16


@dataclass(frozen=True)
class Costs:
    """Seconds an image, measured.

    Parameters
    ----------
    look : float
        To read, decode and pass through the frozen network.
    learn : tuple of float
        To pass forward and backward through the last k stages, for k from 1 to all of them, from what the frozen ones
        put out; through all of them from the files, which are then read and decoded in every epoch.
    """

    look: float
    learn: tuple[float, ...]


@kept()
def measure(backbone: Backbone, paths: Sequence[str] | np.ndarray, device: torch.device | str = "cpu") -> Costs:
    """Return what `backbone` costs on `device`, measured on a few of the images at `paths`, from all over these.

    The backbone is left as it was. Between the numbers of stages that are measured (one, a third, all) the cost is
    read off the straight lines between them.
    """
    some = np.asarray(paths)[np.unique(np.linspace(0, len(paths) - 1, IMAGES).round().astype(int))]
    n = len(backbone.stages)
    model = TransferModel(backbone, Heads([HeadSpec("none", "softmax", ("", "-"))], backbone.width)).to(device)
    model.freeze(freeze.plan("linear_probe", backbone).phases[0])
    pixels = torch.cat([images for _, images in ImageBatches(some, backbone.preprocessing, batch_size=len(some))])
    model.trunk(pixels)  # the first run sets up, which is no cost of an image
    began = time.perf_counter()
    images = torch.cat([images for _, images in ImageBatches(some, backbone.preprocessing, batch_size=len(some))])
    read = (time.perf_counter() - began) / len(some)
    model.trunk(images)
    look = (_now(model) - began) / len(some)
    measured = {}
    for k in sorted({1, third(n), n}):
        model.freeze(freeze.plan(f"partial:{k}", backbone, statistics="frozen").phases[0])
        activation = model.trunk(pixels)
        measured[k] = np.inf
        for _ in range(4):  # the least counts: what else runs, or is set up at first, only adds to it
            began = time.perf_counter()
            model.features(activation).sum().backward()
            measured[k] = min(measured[k], (_now(model) - began) / len(some))
    for parameter in backbone.parameters():
        parameter.grad = None
    counts = sorted(measured)
    learn = np.interp(range(1, n + 1), counts, [measured[k] for k in counts])
    learn[-1] += read
    return Costs(look, tuple(learn.tolist()))


def third(stages: int) -> int:
    """Return how many stages a third of them is, at least one.

    Examples
    --------
    >>> [third(n) for n in (1, 4, 5, 9)]
    [1, 1, 2, 3]
    """
    return max(1, round(stages / 3))


def _now(model: TransferModel) -> float:
    if next(model.parameters()).is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter()
