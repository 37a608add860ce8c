"""Measure the costs of training on this machine with a few images: seconds per image, frozen and trained."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from transfer import freeze
from transfer.backbones.backbone import Backbone
from transfer.data.images.batches import ImageBatches
from transfer.heads import HeadSpec
from transfer.heads.heads import Heads
from transfer.model import TransferModel
from transfer.runtime.malloc import keep_freed_memory

TIMED_IMAGES = 16
TIMED_REPEATS = 4  # the least counts: other processes and first runs only add time


@dataclass(frozen=True)
class TrainingCosts:
    """Measured seconds per image."""

    look: float  # to read and decode an image and run the frozen network on it
    # A forward and backward pass through the last k stages, for k from 1 to all, from the frozen stages' cached output.
    # Through all of them images are read and decoded as well, in every epoch.
    learn: tuple[float, ...]


@keep_freed_memory()
def measure_costs(
    backbone: Backbone, paths: Sequence[str] | np.ndarray, device: torch.device | str = "cpu"
) -> TrainingCosts:
    """Return the costs of `backbone` on `device`, measured on images spread evenly over `paths`.

    The backbone is left unchanged. One, a third and all stages are timed; between them costs are interpolated.
    """
    images = np.asarray(paths)[np.unique(np.linspace(0, len(paths) - 1, TIMED_IMAGES).round().astype(int))]
    n = len(backbone.stages)
    model = TransferModel(backbone, Heads([HeadSpec("none", classes=("", "-"))], backbone.width)).to(device)
    model.freeze(freeze.plan("linear_probe", backbone).phases[0])
    pixels = _read(images, backbone)
    model.trunk(pixels)  # the first run sets up, which costs no image anything
    start = time.perf_counter()
    pixels = _read(images, backbone)
    read = (time.perf_counter() - start) / len(images)
    model.trunk(pixels)
    look = (_finish_time(model) - start) / len(images)
    measured = {}
    for k in sorted({1, count_last_third(n), n}):
        model.freeze(freeze.plan(f"partial:{k}", backbone, statistics="frozen").phases[0])
        activation = model.trunk(pixels)
        measured[k] = np.inf
        for _ in range(TIMED_REPEATS):
            start = time.perf_counter()
            model.features(activation).sum().backward()
            measured[k] = min(measured[k], (_finish_time(model) - start) / len(images))
    for parameter in backbone.parameters():
        parameter.grad = None
    counts = sorted(measured)
    learn = np.interp(range(1, n + 1), counts, [measured[k] for k in counts])
    learn[-1] += read
    return TrainingCosts(look, tuple(learn.tolist()))


def count_last_third(stages: int) -> int:
    """Return the number of stages in the last third of `stages`, at least one.

    Examples
    --------
    >>> [count_last_third(n) for n in (1, 4, 5, 9)]
    [1, 1, 2, 3]
    """
    return max(1, round(stages / 3))


def _read(paths: np.ndarray, backbone: Backbone) -> torch.Tensor:
    return torch.cat([pixels for _, pixels in ImageBatches(paths, backbone.preprocessing, batch_size=len(paths))])


def _finish_time(model: TransferModel) -> float:
    """Return the time after all queued work of the device."""
    device = next(model.parameters()).device
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter()
