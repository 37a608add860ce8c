"""What ways through a frozen network are held against: decoding alone, and the network alone."""

import argparse
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


def arguments(doc: str) -> argparse.Namespace:
    """Return what the command line says of images, rounds and backbone."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--backbone", default="mobilenetv2_100")
    return parser.parse_args()


def timed(call: Callable[[], object]) -> float:
    """Return the seconds that `call` takes."""
    with keep_freed_memory():
        began = time.perf_counter()
        call()
        return time.perf_counter() - began


def frozen(name: str, heads: Sequence[HeadSpec] = ()) -> TransferModel:
    """Return a backbone as a linear probe has it, on the GPU where there is one."""
    backbone = backbones.load(name)
    model = TransferModel(backbone, Heads(heads, backbone.width)).eval()
    model.freeze(freeze.plan("linear_probe", backbone).phases[0])
    return model.cuda() if torch.cuda.is_available() else model


class Alone:
    """Both halves of a pass over `paths`, each by itself.

    Parameters
    ----------
    run : callable
        From a batch of images to tensors, which end on the CPU.
    batch : int
    """

    def __init__(
        self, model: TransferModel, paths: Sequence[str], run: Callable[[Tensor], Sequence[Tensor]], batch: int
    ) -> None:
        self.preprocessing, self.paths, self.run, self.batch = model.backbone.preprocessing, paths, run, batch
        self.few = [images for _, images in self._batches(paths[: 4 * batch])]
        self.passes = max(len(paths) // (4 * batch), 1)

    def _batches(self, paths: Sequence[str]) -> ImageBatches:
        return ImageBatches(paths, self.preprocessing, batch_size=self.batch)

    def decode(self) -> float:
        """Return the seconds of decoding all images."""
        return timed(lambda: [None for _ in self._batches(self.paths)])

    def forward(self) -> float:
        """Return the seconds of the network on as many images, few of them again and again."""

        def passing() -> None:
            for images in self.few * self.passes:
                for out in self.run(images):
                    out.cpu()

        return timed(passing) * len(self.paths) / sum(map(len, self.few * self.passes))
