"""Which backbones are fast enough: the seconds that each takes for the images, before any of them is read."""

from collections.abc import Mapping

from transfer.backbones import registry
from transfer.backbones.measured_rates import MeasuredRates
from transfer.config.train import BackboneConfig
from transfer.errors import TransferError
from transfer.runtime import distributed
from transfer.runtime.device import pick_device


def estimate_seconds(configs: Mapping[str, BackboneConfig], images: int, device: str = "auto") -> dict[str, float]:
    """Return the seconds that each frozen network of `configs` takes for a number of `images` on this machine.

    The speed of a network is measured once on each machine, with random weights, without reading images. A square of
    another size than in pretraining costs in proportion to its area.
    """
    speeds = MeasuredRates(pick_device(device)).measure([config.backbone for config in configs.values()])
    return {name: images * _area_ratio(config) / speeds[config.backbone] for name, config in configs.items()}


def select_affordable(
    configs: Mapping[str, BackboneConfig], images: int, budget: float, device: str = "auto"
) -> tuple[dict[str, BackboneConfig], list[str]]:
    """Return those of `configs` that take `budget` seconds at most for `images`, and a note on the others.

    Raises
    ------
    TransferError
        All of them take longer.
    """
    seconds = distributed.broadcast(estimate_seconds(configs, images, device))
    affordable = {name: config for name, config in configs.items() if seconds[name] <= budget}
    if not affordable:
        fastest = min(seconds, key=seconds.__getitem__)
        raise TransferError(
            f"--budget {budget:g}: the fastest of the backbones, {fastest}, takes about {seconds[fastest]:.2g} s for "
            f"{images} images"
        )
    slow = [f"{name} ({seconds[name]:.2g} s)" for name in configs if name not in affordable]
    over = f"over --budget {budget:g} s for {images} images, not ranked: {', '.join(slow)}"
    return affordable, [over] if slow else []


def _area_ratio(config: BackboneConfig) -> float:
    """Return the area of the images of `config` as a multiple of that in pretraining."""
    if config.image_size is None:
        return 1.0
    provider, name = registry.resolve(config.backbone)
    _, height, width = provider.preprocessing(name).input_size
    return config.image_size**2 / (height * width)
