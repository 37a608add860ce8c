"""Images per second of `transfer predict`, compared with decoding alone and with the ideal; peak memory.

python tests/benchmarks/prediction.py [--images N] [--rounds N] [--backbone B] [--engine E]

Ideal: 1 / (decode + forward) if both share the CPU's cores; decoding alone if the network runs on a GPU. Every round
measures each once; medians of the rounds' ratios, on the clock and in processor time. Rows are written as they are
predicted, so memory does not grow with the number of images.
"""

import json
import os
import resource
import statistics

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import machine
import numpy as np
import pipeline
import torch

from transfer.data.sets.load import load_table
from transfer.evaluation.predict import PREDICTED_AT_ONCE, predict
from transfer.heads import HeadSpec


def main() -> None:
    """Print the table."""
    options = pipeline.parse_arguments(__doc__)
    n, table = options.images, load_table("office31")
    paths = np.resize(table.paths[np.random.default_rng(0).permutation(len(table))], n).tolist()
    heads = [HeadSpec(name, classes=table.targets[name].classes) for name in ("object", "domain")]
    model = pipeline.load_frozen_model(options.backbone, heads, options.engine)
    alone = pipeline.SeparateHalves(model, paths, lambda images: model.predict(images).values(), PREDICTED_AT_ONCE)

    def ours() -> None:
        with open(os.devnull, "w") as file:
            for row in predict({"": model}, paths):
                file.write(json.dumps(row) + "\n")

    ours(), alone.forward()
    rounds = [(alone.time_decoding(), alone.time_forward(), pipeline.time_both(ours)) for _ in range(options.rounds)]
    rates = [statistics.median(n / clock for clock, _ in column) for column in zip(*rounds, strict=True)]
    of_decode = statistics.median(decoding[0] / whole[0] for decoding, _, whole in rounds)
    gpu = torch.cuda.is_available()
    of_ideal, of_processor = (
        statistics.median((d[k] if gpu else d[k] + f[k]) / whole[k] for d, f, whole in rounds) for k in (0, 1)
    )
    ratios = of_decode, of_ideal, of_processor
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        machine.describe(),
        f"\n{options.backbone}, engine {options.engine}, n = {n} images of Office-31, {options.rounds} rounds",
        sep="",
    )
    print(
        machine.format_table(
            [
                ["decode /s", "forward /s", "predict /s", "of decode", "of ideal", "in processor time", "peak MiB"],
                [*(f"{rate:.0f}" for rate in rates), *(f"{ratio:.2f}" for ratio in ratios), f"{memory:.0f}"],
            ]
        )
    )


if __name__ == "__main__":
    main()
