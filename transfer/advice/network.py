"""What the rule asks of a network: how large its stages are, and whether it has norms."""

from dataclasses import dataclass

from transfer import freeze
from transfer.backbones.backbone import Backbone
from transfer.backbones.stages import weight_layers


@dataclass(frozen=True)
class Network:
    """What the rule asks of a network.

    Parameters
    ----------
    parameters, layers : tuple of int
        Of each stage, lowest first; layers with weights are meant.
    normed : bool
        Whether it has normalisation layers: it then learns more in as many steps.
    """

    parameters: tuple[int, ...]
    layers: tuple[int, ...]
    normed: bool = True

    @classmethod
    def of(cls, backbone: Backbone) -> "Network":
        """Return what the rule asks of `backbone`.

        Examples
        --------
        >>> from transfer.backbones import load
        >>> found = Network.of(load("glyphnet"))
        >>> len(found.parameters) == len(found.layers), found.normed
        (True, True)
        """
        inside = backbone.network.get_submodule
        return cls(
            tuple(stage.parameters for stage in freeze.plan("full", backbone).phases[0].stages),
            tuple(sum(weight_layers(inside(path)) for path in stage.modules) for stage in backbone.stages),
            any(freeze.is_norm(module) for module in backbone.network.modules()),
        )
