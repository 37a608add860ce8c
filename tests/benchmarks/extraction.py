"""Images per second through the frozen trunk into an empty cache, compared with the ideal and the usual loop.

python tests/benchmarks/extraction.py [--images N] [--rounds N] [--engine E]

Ideal: 1 / (decode + forward), each measured alone on the same images on all cores. Usual loop: ImageFolder, DataLoader
(the better of 0 and 2 processes) and the network in eval mode. Shards: the same images in tars of 100. Every round
measures each once; medians of the rounds' ratios.
"""

import hashlib
import os
import statistics
import tarfile
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import baseline
import machine
import numpy as np
import pipeline
from torch.utils.data import DataLoader, Subset

from transfer.data.sets.load import load_table
from transfer.data.sets.office31 import find_office31
from transfer.data.table import ImageTable
from transfer.disk_cache import DiskCache
from transfer.feature_cache import TrunkCache

BATCH = 64
IMAGES_PER_SHARD = 100
HEADING = "decode /s", "forward /s", "ours, cold /s", "from shards /s", "DataLoader loop /s"


def write_shards(table: ImageTable, folder: Path) -> ImageTable:
    """Write the images of `table` into tar shards in `folder`; return their table."""
    for start in range(0, len(table), IMAGES_PER_SHARD):
        with tarfile.open(folder / f"{start // IMAGES_PER_SHARD:04}.tar", "w") as tar:
            for row in range(start, min(start + IMAGES_PER_SHARD, len(table))):
                domain, name = table.domains[table.domain[row]], table.objects[table.object[row]]
                tar.add(table.paths[row], f"{domain}/{name}/{row}{Path(table.paths[row]).suffix}")
    return load_table(str(folder))


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder))


def measure(folder: Path) -> None:
    """Print the table, of images and of shards written into `folder`."""
    options = pipeline.parse_arguments(__doc__)
    n, table = options.images, load_table("office31")
    table = table.take(np.random.default_rng(0).permutation(len(table))[:n])
    digests = np.array([hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in table.paths])
    model = pipeline.load_frozen_model(options.backbone, engine=options.engine)
    trunk = model.get_trunk()
    alone = pipeline.SeparateHalves(model, table.paths, lambda images: [trunk(images)], BATCH)

    def ours(paths: Sequence[str]) -> None:
        with tempfile.TemporaryDirectory() as empty:
            cache = TrunkCache(disk_cache=DiskCache(Path(empty)))
            cache.feed(model, paths, digests, batch_size=BATCH).prepare(np.arange(n))

    plain = baseline.load_network(options.backbone, Path(os.environ["TRANSFER_WEIGHTS"]))
    everything = baseline.OfficeObjects(find_office31(), plain)
    order = {path: i for i, (path, _) in enumerate(everything.samples)}
    subset = Subset(everything, [order[str(path)] for path in table.paths])

    def loop(workers: int) -> float:
        batches = DataLoader(subset, baseline.BATCH, num_workers=workers)
        return baseline.time_evaluation(plain, batches)

    shards = write_shards(table, folder).paths
    ours(table.paths), ours(shards), alone.decode(), alone.forward()
    rounds = []
    for _ in range(options.rounds):
        each = [pipeline.time_call(partial(ours, paths)) for paths in (table.paths, shards)]
        rounds.append((alone.decode(), alone.forward(), *each, min(loop(0), loop(2))))
    rates = [statistics.median(n / seconds for seconds in column) for column in zip(*rounds, strict=True)]
    of_ideal = statistics.median((decoding + passing) / whole for decoding, passing, whole, *_ in rounds)
    of_usual = statistics.median(usually / whole for *_, whole, _, usually in rounds)
    of_folder = statistics.median(whole / sharded for *_, whole, sharded, _ in rounds)
    print(
        machine.describe(),
        f"\n{options.backbone}, engine {options.engine}, n = {n} images of Office-31, {options.rounds} rounds",
        sep="",
    )
    print(
        machine.format_table(
            [
                [*HEADING, "of ideal", "times the loop", "shards of folder"],
                [*(f"{rate:.0f}" for rate in rates), f"{of_ideal:.2f}", f"{of_usual:.2f}", f"{of_folder:.2f}"],
            ]
        )
    )


if __name__ == "__main__":
    main()
