"""Images per second of `transfer predict`'s pipeline, against decoding alone and against the ideal; peak memory.

python tests/benchmarks/prediction.py [--images N] [--rounds N] [--backbone B]

Ideal: 1 / (decode + forward) where both share the CPU's cores, decode alone where the network has a GPU of its own.
All in turn, round by round; medians of the rounds' ratios. Rows are written as they come, so that memory does not grow
with the number of images.
"""

import argparse
import json
import os
import resource
import statistics
import time

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import machine
import numpy as np
import torch

from transfer import backbones, freeze
from transfer.data.images import ImageBatches
from transfer.data.sets import load_table
from transfer.heads import Heads, HeadSpec
from transfer.learn.predict import BATCH, predict
from transfer.model import TransferModel


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
    paths = np.resize(table.paths[np.random.default_rng(0).permutation(len(table))], n).tolist()
    backbone = backbones.load(given.backbone)
    specs = [HeadSpec(name, classes=table.targets[name].classes) for name in ("object", "domain")]
    model = TransferModel(backbone, Heads(specs, backbone.width)).eval()
    model.freeze(freeze.plan("linear_probe", backbone).phases[0])
    gpu = torch.cuda.is_available()
    model = model.cuda() if gpu else model
    few = [images for _, images in ImageBatches(paths[: 4 * BATCH], backbone.preprocessing, batch_size=BATCH)]

    def ours() -> None:
        with open(os.devnull, "w") as file:
            for row in predict({"": model}, paths):
                file.write(json.dumps(row) + "\n")

    def decode() -> None:
        for _ in ImageBatches(paths, backbone.preprocessing, batch_size=BATCH):
            pass

    def forward() -> None:
        for _ in range(n // (4 * BATCH)):
            for images in few:
                for values in model.predict(images).values():
                    values.cpu()

    predict({"": model}, paths[:BATCH]), forward()
    rounds = [(timed(decode), timed(forward), timed(ours)) for _ in range(given.rounds)]
    rates = [statistics.median(n / seconds for seconds in column) for column in zip(*rounds, strict=True)]
    of_decode = statistics.median(decoding / whole for decoding, _, whole in rounds)
    of_ideal = statistics.median((d if gpu else d + f) / whole for d, f, whole in rounds)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(machine.line(), f"\n{given.backbone}, n = {n} images of Office-31, {given.rounds} rounds", sep="")
    print(
        machine.table(
            [
                ["decode /s", "forward /s", "predict /s", "of decode", "of ideal", "peak MiB"],
                [*(f"{rate:.0f}" for rate in rates), f"{of_decode:.2f}", f"{of_ideal:.2f}", f"{memory:.0f}"],
            ]
        )
    )


if __name__ == "__main__":
    main()
