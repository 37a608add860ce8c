"""The two halves of feature extraction, timed separately: decoding, and the frozen network."""

import argparse
import resource
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from transfer import backbones, freeze
from transfer.data.images.batches import ImageBatches
from transfer.heads import HeadSpec
from transfer.heads.heads import Heads
from transfer.model import TransferModel
from transfer.runtime.malloc import keep_freed_memory


def parse_arguments(doc: str) -> argparse.Namespace:
    """Return the options for images, rounds, backbone and engine."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--backbone", default="mobilenetv2_100")
    parser.add_argument("--engine", default="auto", help="what runs the network on a CPU")
    return parser.parse_args()


def time_call(call: Callable[[], object]) -> float:
    """Return the seconds of `call`."""
    with keep_freed_memory():
        started = time.perf_counter()
        call()
        return time.perf_counter() - started


def time_both(call: Callable[[], object]) -> tuple[float, float]:
    """Return the seconds of `call` on the clock, and of processor with the processes that it ended."""

    def spent() -> float:
        each = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        return sum(usage.ru_utime + usage.ru_stime for usage in each)

    before = spent()
    seconds = time_call(call)
    return seconds, spent() - before


def load_frozen_model(name: str, heads: Sequence[HeadSpec] = (), engine: str = "auto") -> TransferModel:
    """Return a backbone frozen as for a linear probe, on the GPU if there is one."""
    backbone = backbones.load(name)
    backbone.engine = engine
    model = TransferModel(backbone, Heads(heads, backbone.width)).eval()
    model.freeze(freeze.plan("linear_probe", backbone).phases[0])
    return model.cuda() if torch.cuda.is_available() else model


class SeparateHalves:
    """Decoding and the network, each timed alone on `paths`.

    Parameters
    ----------
    run : callable
        From a batch of images to tensors, which are then moved to the CPU.
    batch : int
    """

    def __init__(
        self, model: TransferModel, paths: Sequence[str], run: Callable[[Tensor], Sequence[Tensor]], batch: int
    ) -> None:
        self.preprocessing, self.paths, self.run, self.batch = model.backbone.preprocessing, paths, run, batch
        self.batches = [images for _, images in self._batches(paths[: 4 * batch])]
        self.passes = max(len(paths) // (4 * batch), 1)

    def _batches(self, paths: Sequence[str]) -> ImageBatches:
        return ImageBatches(paths, self.preprocessing, batch_size=self.batch)

    def decode(self) -> float:
        """Return the seconds of decoding all images."""
        return self.time_decoding()[0]

    def forward(self) -> float:
        """Return the seconds of the network on as many images; a few batches are used repeatedly."""
        return self.time_forward()[0]

    def time_decoding(self) -> tuple[float, float]:
        """Return the seconds of :meth:`decode` on the clock and of processor."""
        return time_both(lambda: [None for _ in self._batches(self.paths)])

    def time_forward(self) -> tuple[float, float]:
        """Return the seconds of :meth:`forward` on the clock and of processor."""

        def run_all() -> None:
            for images in self.batches * self.passes:
                for out in self.run(images):
                    out.cpu()

        clock, processor = time_both(run_all)
        scale = len(self.paths) / sum(map(len, self.batches * self.passes))
        return clock * scale, processor * scale
