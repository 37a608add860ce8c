"""Images per second of a frozen network on this machine: measured, or modelled from the work that an image takes.

The model has two terms: seconds for each multiply-add of the convolutions and linear layers, and seconds for each value
that they write, which bounds depthwise convolutions (the activations of Radosavovic et al. 2020, section 3.1). Two
networks that differ in their ratio calibrate it.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import nnls
from torch import nn

from transfer.backbones import registry
from transfer.backbones.engines.chunks import count_chunk_images
from transfer.backbones.stages import BuildOnMeta, switch_to_eval
from transfer.backbones.trunk import Trunk
from transfer.backbones.weights import load
from transfer.runtime import distributed
from transfer.runtime.malloc import keep_freed_memory

CALIBRATION = ("tf_efficientnet_lite0", "resnet18.a1_in1k")  # few multiply-adds per value written, and many
TIMED_BATCHES = 2  # the least time counts
MEASURING_VERSION = 2  # of the way of measuring; part of the key of cached rates


@dataclass(frozen=True)
class NetworkWork:
    """What one image costs: multiply-adds and values written by convolutions and linear layers, in millions."""

    multiply_adds: float
    activations: float


@dataclass(frozen=True)
class MachineSpeed:
    """The calibrated model of this machine."""

    seconds: NetworkWork  # for a million of each

    def predict(self, work: NetworkWork) -> float:
        """Return images per second of a network with this `work`.

        Examples
        --------
        >>> MachineSpeed(NetworkWork(1e-5, 1e-3)).predict(NetworkWork(1000.0, 10.0))
        50.0
        """
        total = work.multiply_adds * self.seconds.multiply_adds + work.activations * self.seconds.activations
        return 1 / total


def count_work(name: str) -> NetworkWork:
    """Return the work of an image in the network `name`, built on the meta device."""
    provider, name = registry.resolve(name)
    with BuildOnMeta():
        network = provider.build(name)
    multiply_adds = activations = 0

    def count(layer: nn.Module, _: tuple, output: torch.Tensor) -> None:
        nonlocal multiply_adds, activations
        multiply_adds += output.numel() * layer.weight[0].numel()  # type: ignore[index]
        activations += output.numel()

    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    with switch_to_eval(network), torch.no_grad():
        network.to("meta")(torch.empty(1, *provider.preprocessing(name).input_size, device="meta"))
    return NetworkWork(multiply_adds / 1e6, activations / 1e6)


@keep_freed_memory()
def measure_rate(name: str, device: torch.device | str = "cpu") -> float:
    """Return images per second of the frozen network `name`, with random weights and without reading images.

    It runs on the engine that ``--engine auto`` takes. On a CPU, processor time counts, with all cores of this process
    at work: other processes hardly change it.
    """
    backbone = load(name, random_init=True).to(device)
    backbone.engine = "auto"
    trunk = Trunk(backbone, len(backbone.stages), store=False)
    kind = torch.device(device).type
    cores = distributed.count_cores_per_process() if kind == "cpu" else 1
    clock = time.process_time if kind == "cpu" else time.perf_counter
    count = count_chunk_images(kind) * cores
    images = torch.randint(0, 256, (count, *backbone.preprocessing.input_size), dtype=torch.uint8)
    least = float("inf")
    for _ in range(1 + TIMED_BATCHES):  # the first sets up
        start = clock()
        trunk(images).cpu()
        least = min(least, (clock() - start) / cores)
    return count / least


def calibrate_speed(rates: Mapping[str, float], work: Mapping[str, NetworkWork]) -> MachineSpeed:
    """Fit the model to `rates`, in images per second, and `work` of the networks of ``CALIBRATION``."""
    counted = [[work[name].multiply_adds, work[name].activations] for name in CALIBRATION]
    fitted, _ = nnls(np.array(counted), np.array([1 / rates[name] for name in CALIBRATION]))
    return MachineSpeed(NetworkWork(*fitted.tolist()))
