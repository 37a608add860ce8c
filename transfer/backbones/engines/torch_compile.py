"""torch.compile: kernels that TorchInductor writes for a network and a device, on a GPU replayed as one CUDA graph."""

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from transfer.backbones.backbone import Backbone
from transfer.backbones.engines.chunks import to_channels_last
from transfer.backbones.engines.graph import StagesModule
from transfer.backbones.folding import fold_batch_norms

COMPILE = "compile"  # the name of the engine


class TorchCompileEngine:
    """A network compiled for one shape of input; on a CPU, calls from several threads run side by side.

    Parameters
    ----------
    network : nn.Module
        In eval mode, on its device; its weights must not change.
    example : Tensor, shape (N, ...)
        On the same device; every input has its shape.

    Raises
    ------
    Exception
        Whatever the compiler raises, also where there is no C++ compiler.
    """

    def __init__(self, network: nn.Module, example: Tensor) -> None:
        from torch.fx.experimental.proxy_tensor import make_fx

        # Cutting a network changes modules and raises exceptions, which the compiler cannot follow: it gets the
        # operations that were computed.
        graph = make_fx(network)(example)
        self._replays = example.is_cuda
        # Without CUDA graphs, launching the kernels of a small network takes longer than computing them.
        self._run: Any = torch.compile(graph, dynamic=False, mode="reduce-overhead" if self._replays else None)

    def __call__(self, x: Tensor) -> Tensor:
        """Return the output for `x`."""
        x = to_channels_last(x)
        with torch.inference_mode(False), torch.no_grad():  # as when it was compiled
            if not self._replays:
                return self._run(x)
            torch.compiler.cudagraph_mark_step_begin()
            return self._run(x).clone()  # the next call writes to the same memory


def compile_with_torch(
    backbone: Backbone, cut: int, start: int, shape: tuple[int, ...]
) -> tuple[Callable[[Tensor], Tensor], float]:
    """Return the stages of `backbone` from the cut `start` to `cut`, compiled, and their error.

    Parameters
    ----------
    backbone : Backbone
        Left unchanged.
    cut, start : int
    shape : tuple of int
        Of all inputs: normalised images (N, 3, H, W), or activations (N, ...) at `start`.

    Returns
    -------
    callable, float
        The stages, and their largest difference from torch's output, relative to its largest value.

    Raises
    ------
    Exception
        Whatever the compiler raises, also where there is no C++ compiler.
    """
    device = next(backbone.parameters()).device
    examples = torch.randn((2, *shape), generator=torch.Generator().manual_seed(0))
    examples[1] = examples[1] / 3 + 1  # unlike the first one, whose values the graph must not depend on

    def compile_and_compare() -> tuple[Callable[[Tensor], Tensor], float]:
        first, second = (to_channels_last(x) for x in examples.to(device))
        with torch.inference_mode(False), torch.no_grad():
            stages = StagesModule(fold_batch_norms(backbone, cut, shape[0]), cut, start).requires_grad_(False).eval()
            engine = TorchCompileEngine(stages, first)
            found, expected = (torch.stack([run(first), run(second)]) for run in (engine, stages))
            return engine, float((found - expected).abs().max() / expected.abs().max())

    # The compiler writes code for the number of threads that it finds: those of the trunk have one core each. A CUDA
    # graph belongs to the thread that recorded it, the caller's.
    with _quiet():
        if device.type != "cpu":
            return compile_and_compare()
        with ThreadPoolExecutor(1, initializer=lambda: torch.set_num_threads(1)) as pool:
            return pool.submit(compile_and_compare).result()


def explain(failure: Exception) -> str:
    """Return in a line why the compiler failed: the first line of its cause."""
    cause = getattr(failure, "inner_exception", failure)
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return lines[0] if lines else type(cause).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the compiler where it finds no CUDA."""
    log = logging.getLogger("torch.utils.cpp_extension")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)
