"""Images per second of training steps of a tail on one core: with BatchNorm folded and without, and the limit.

python tests/benchmarks/tail_speed.py [--policies partial:1 full ...] [--backbones B ...] [--rounds N]

A step is forward, backward and AdamW on 64 cached activations, with frozen statistics. Before: the network's own
modules. The limit is three times the floating-point operations of a forward pass (the backward pass has two products
for each of the forward pass) at the rate of the faster of two matrix products in float32: `torch.mm` and a 1 x 1
convolution. All are timed in turns, in processor time; medians.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from unittest import mock

import machine
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from transfer import freeze
from transfer.backbones import load
from transfer.config.train import LearnConfig
from transfer.heads import HeadSpec
from transfer.heads.heads import Heads
from transfer.model import TransferModel
from transfer.runtime.malloc import keep_freed_memory
from transfer.training import optimizers

BATCH, CLASSES = 64, 31
SIDES = ("before", "now", "bfloat16 before", "bfloat16 now")


def products() -> list[tuple[float, Callable[[], Tensor]]]:
    """Return matrix products, with their floating-point operations."""
    a, b = torch.rand(2048, 2048), torch.rand(2048, 2048)
    maps = torch.rand(64, 512, 14, 14).contiguous(memory_format=torch.channels_last)
    weight = torch.rand(512, 512, 1, 1).contiguous(memory_format=torch.channels_last)
    return [(2 * 2048**3, lambda: a @ b), (2 * 64 * 14**2 * 512**2, lambda: torch.conv2d(maps, weight))]


def prepare(backbone: str, policy: str) -> tuple[Callable[[str], None], float]:
    """Return a training step, which takes its side, and the operations of a forward pass of one image."""
    torch.manual_seed(0)
    loaded = load(backbone)
    plan = freeze.plan(policy, loaded, statistics="frozen")
    model = TransferModel(loaded, Heads([HeadSpec("object", classes=tuple(map(str, range(CLASSES))))], loaded.width))
    model.freeze(plan.phases[-1])
    optimizer = optimizers.build_optimizer(model, plan, LearnConfig())
    pixels = torch.randint(0, 256, (BATCH, *loaded.preprocessing.input_size), dtype=torch.uint8)
    with torch.no_grad():
        activation, labels = model.trunk(pixels), {"object": torch.arange(BATCH) % CLASSES}
        with FlopCounterMode(display=False) as counter:
            model(activation[:1])
    model.train()

    def step(side: str) -> None:
        plain = mock.patch.object(TransferModel, "_fold_norms", return_value=nullcontext())
        with plain if "before" in side else nullcontext(), torch.autocast("cpu", torch.bfloat16, "bfloat16" in side):
            out = model(activation)
        optimizer.zero_grad(set_to_none=True)
        model.heads.loss(out, labels).backward()
        optimizer.step()

    return step, counter.get_total_flops()


def time_once(run: Callable[..., object], *arguments: str) -> float:
    """Return the processor seconds of a call."""
    started = time.process_time()
    run(*arguments)
    return time.process_time() - started


def measure(step: Callable[[str], None], rounds: int) -> tuple[dict[str, list[float]], float]:
    """Return the seconds of a step by its side, one for each round after the first, and operations per second."""
    seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    rates: list[list[float]] = [[], []]
    for number in range(rounds + 1):
        for (operations, product), found in zip(products(), rates, strict=True):
            product()
            found.append(operations / time_once(product))
        for side in SIDES:
            taken = time_once(step, side)
            seconds[side] += [taken] if number else []
    return seconds, max(map(statistics.median, rates))


@keep_freed_memory()
def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--policies", nargs="+", default=["partial:1", "partial:2", "partial:3", "partial:4", "full"])
    parser.add_argument("--backbones", nargs="+", default=["mobilenetv2_100", "tf_efficientnet_lite0"])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    heading = ["network", "policy", *(f"{side} images/s" for side in SIDES), "limit", "now x", "bfloat16 x"]
    lines = [[*heading, "share before", "share now", "share bfloat16"]]
    for backbone in options.backbones:
        for policy in options.policies:
            step, operations = prepare(backbone, policy)
            seconds, rate = measure(step, options.rounds)
            speed = {side: BATCH / statistics.median(found) for side, found in seconds.items()}
            limit, first = rate / (3 * operations), seconds[SIDES[0]]
            gains = [
                statistics.median(a / b for a, b in zip(first, seconds[side], strict=True))
                for side in ("now", "bfloat16 now")
            ]
            cells = [*(f"{speed[side]:.0f}" for side in SIDES), f"{limit:.0f}", *(f"{gain:.2f}" for gain in gains)]
            shares = [f"{speed[side] / limit:.2f}" for side in ("before", "now", "bfloat16 now")]
            lines.append([backbone, policy, *cells, *shares])
            print(f"{rate / 1e9:.0f} GFLOP/s:", *lines[-1], flush=True)
    print(machine.describe(), f"\n{options.rounds} rounds, batches of {BATCH}, one core", sep="")
    print(machine.format_table(lines))


if __name__ == "__main__":
    main()
