"""The interface of a penalty: a term of a step's loss, from the model and its outputs on the batch."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from transfer.model import TransferModel
from transfer.training.mixing import Labels


@dataclass(frozen=True)
class PenaltyInputs:
    """The inputs of a penalty in one training step.

    Parameters
    ----------
    model : TransferModel
    activation : Tensor
        The tail's input.
    features : Tensor, shape (N, width)
        The backbone's pooled output.
    labels : tuple of Labels
        Several if rows are mixed.
    maps : mapping of str to Tensor, shape (N, channels, ...)
        Outputs of the modules that penalties name in ``maps``.
    sizes : tuple of int, optional
        Rows of `features` from each process; each process has only its own rows of `activation` and `maps`.
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
    """Collect the outputs of the modules at `paths`, by path, within the context."""
    outputs: dict[str, Tensor] = {}

    def record(path: str) -> Any:
        return lambda module, inputs, output: outputs.update({path: output})

    hooks = [network.get_submodule(path).register_forward_hook(record(path)) for path in paths]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()
