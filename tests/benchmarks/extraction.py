"""Images per second through the frozen trunk into an empty cache, against the ideal and against the usual loop.

python tests/benchmarks/extraction.py [--images N] [--rounds N]

Ideal: 1 / (decode + forward), each measured alone on the same images with every core at work. Usual: ImageFolder,
DataLoader (the better of 0 and 2 processes) and the network in eval mode. All in turn, round by round; medians of the
rounds' ratios.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import machine
import numpy as np
import torch
import usual
from torch.utils.data import Subset

from transfer import backbones, freeze
from transfer.cache import TrunkCache
from transfer.data.images import ImageBatches
from transfer.data.office31 import office31
from transfer.data.sets import load_table
from transfer.heads import Heads
from transfer.model import TransferModel
from transfer.store import Store


def timed(call) -> float:
    """Return the seconds that `call` takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--backbone", default="mobilenetv2_100")
    given = parser.parse_args()
    n = given.images
    table = load_table("office31")
    table = table.take(np.random.default_rng(0).permutation(len(table))[:n])
    digests = np.array([f"{row:064x}" for row in range(len(table))])
    backbone = backbones.load(given.backbone)
    model = TransferModel(backbone, Heads([], backbone.width)).eval()
    model.freeze(freeze.plan("linear_probe", backbone).phases[0])
    if torch.cuda.is_available():
        model = model.cuda()
    trunk = model.ready_trunk()
    few = [images for _, images in ImageBatches(table.paths[:256], backbone.preprocessing)]

    def ours() -> None:
        with tempfile.TemporaryDirectory() as folder:
            cache = TrunkCache(store=Store(Path(folder)))
            cache.feed(model, table.paths, digests, batch_size=64).prepare(np.arange(n))

    def decode() -> None:
        for _ in ImageBatches(table.paths, backbone.preprocessing):
            pass

    def forward() -> None:
        for _ in range(n // 256):
            for images in few:
                trunk(images).cpu()

    plain = usual.network(given.backbone, Path(os.environ["TRANSFER_WEIGHTS"]))
    everything = usual.Objects(office31(), plain)
    order = {path: i for i, (path, _) in enumerate(everything.samples)}
    some = Subset(everything, [order[str(path)] for path in table.paths])

    def loop(workers: int) -> float:
        batches = torch.utils.data.DataLoader(some, usual.BATCH, num_workers=workers)
        return usual.evaluation(plain, batches)

    ours(), decode(), forward()
    rounds = []
    for _ in range(given.rounds):
        decoding, passing = timed(decode), timed(forward) * n / (n // 256 * 256)
        rounds.append((decoding, passing, timed(ours), min(loop(0), loop(2))))
    rates = [statistics.median(n / seconds for seconds in column) for column in zip(*rounds, strict=True)]
    of_ideal = statistics.median((decoding + passing) / whole for decoding, passing, whole, _ in rounds)
    of_usual = statistics.median(usually / whole for _, _, whole, usually in rounds)
    print(machine.line(), f"\n{given.backbone}, n = {n} images of Office-31, {given.rounds} rounds", sep="")
    print(
        machine.table(
            [
                ["decode /s", "forward /s", "ours, cold /s", "DataLoader loop /s", "of ideal", "times the loop"],
                [*(f"{rate:.0f}" for rate in rates), f"{of_ideal:.2f}", f"{of_usual:.2f}"],
            ]
        )
    )


if __name__ == "__main__":
    main()
