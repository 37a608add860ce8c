"""What a penalty is: a number added to a step's loss, from the model and what it makes of the batch."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from transfer.model import TransferModel
from transfer.training.mixing import Labels


@dataclass(frozen=True)
class PenaltyInputs:
    """What a penalty may see of a training step.

    Parameters
    ----------
    model : TransferModel
    activation : Tensor
        What the tail was given.
    features : Tensor, shape (N, width)
        What it made of that, pooled.
    labels : tuple of Labels
        Several where rows are mixed.
    maps : mapping of str to Tensor, shape (N, channels, ...)
        Outputs of the network's modules that some penalty names in ``maps``.
    sizes : tuple of int, optional
        How many rows of `features` are each process's; of `activation` and `maps` each has its own alone.
    """

    model: TransferModel
    activation: Tensor
    features: Tensor
    labels: tuple[Labels, ...] = ()
    maps: Mapping[str, Tensor] = field(default_factory=dict)
    sizes: tuple[int, ...] | None = None


class Penalty:
    """A term of the loss; called with a :class:`PenaltyInputs`, it returns a scalar with gradient."""

    maps: Sequence[str] = ()

    def __call__(self, step: PenaltyInputs) -> Tensor:
        """Return the term for a step."""
        raise TypeError(f"{type(self).__name__} has no definition")


@contextmanager
def capture_outputs(network: nn.Module, paths: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Collect what the modules at `paths` put out, by path, while the context lasts."""
    seen: dict[str, Tensor] = {}

    def keeping(path: str) -> Any:
        return lambda module, given, output: seen.update({path: output})

    hooks = [network.get_submodule(path).register_forward_hook(keeping(path)) for path in paths]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
