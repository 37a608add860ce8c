"""Seconds of extraction and training by one process and by two, each bound to one core.

python tests/benchmarks/processes.py [--images N] [--full N] [--rounds N]

In each round, both fill an empty cache with the features of a frozen network, train an epoch of `partial:2` on the
cached features and one of `full` on images (batches of 32); medians of the rounds' ratios. Last come the seconds of
summing the gradients of two processes (gloo, over the loopback device).
"""

import argparse
import json
import os
import socket
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import machine
import numpy as np
import torch
import torch.distributed as dist

from transfer.config.train import BackboneConfig, LearnConfig, PolicyConfig, TrainConfig
from transfer.data.duplicates import inspect_files
from transfer.data.sets.load import load_table
from transfer.data.splits import split
from transfer.disk_cache import DiskCache
from transfer.evaluation.predictions import target_tensors
from transfer.feature_cache import TrunkCache
from transfer.heads.table_heads import head_specs
from transfer.runtime import distributed
from transfer.runtime.distributed.batches import gather_rows
from transfer.training import optimizers
from transfer.training.epoch import EpochTrainer, TrainingData
from transfer.training.setup import Images, new_model

distributed.count_cores_per_process = lambda: 1  # each process is bound to one core


def time_work(images: Images, options: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Return the seconds of each kind of work, from the common start until all processes have finished.

    ``..., processor`` is the largest processor time of one process, without waiting for others: it counts if cores are
    not free.
    """
    parts = split(images.table, images.inspection, test=0.0, val=0.0, seed=0)
    seconds = {}
    for policy, count in (("linear_probe", options.images), ("partial:2", options.images), ("full", options.full)):
        learn = LearnConfig(batch_size=32, device="cpu", workers=1)
        config = TrainConfig(
            backbone=BackboneConfig(options.backbone), policy=PolicyConfig(policy, statistics="learning"), learn=learn
        )
        model, plan = new_model(config, head_specs(images.table, parts, config.heads)[0][""], 0, torch.device("cpu"))
        rows = np.random.default_rng(0).permutation(parts.train)[:count]
        model.freeze(plan.phases[0])
        feed = TrunkCache(disk_cache=DiskCache(folder)).feed(
            model, images.table.paths, images.inspection.sha256, batch_size=32, workers=1
        )
        model.get_trunk() if model.cut else None
        distributed.wait_for_all()
        started, busy = time.perf_counter(), time.process_time()
        feed.prepare(rows)
        busy = get_maximum(time.process_time() - busy)
        distributed.wait_for_all()
        if policy == "linear_probe":
            seconds |= {"extraction": time.perf_counter() - started, "extraction, processor": busy}
            continue
        data = TrainingData(images.table, images.inspection.sha256, rows, rows[:0])
        optimizer = optimizers.build_optimizer(model, plan, config.learn)
        labels = target_tensors(images.table, model)
        started, busy = time.perf_counter(), time.process_time()
        EpochTrainer(model, feed, data, labels, optimizer, plan.phases[0], config.learn).run_epoch((1, 1), [0, 0, 1])
        busy = get_maximum(time.process_time() - busy)
        distributed.wait_for_all()
        seconds |= {policy: time.perf_counter() - started, f"{policy}, processor": busy}
        if distributed.get_world_size() > 1:
            gradients = torch.zeros(sum(p.numel() for p in model.parameters() if p.requires_grad))
            started = time.perf_counter()
            for _ in range(10):
                dist.all_reduce(gradients)
            seconds[f"sum {len(gradients)}"] = (time.perf_counter() - started) / 10
    return seconds


def get_maximum(seconds: float) -> float:
    """Return the largest number of seconds of all processes."""
    return float(gather_rows(torch.tensor([seconds]), distributed.get_world_size()).max())


def run_processes(world: int, images: Images, options: argparse.Namespace) -> dict[str, float]:
    """Return what the first of `world` processes measures."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        pids = []
        for number in range(world):
            pids.append(os.fork())
            if pids[-1]:
                continue
            os.sched_setaffinity(0, {number})
            place = {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
            os.environ |= {name: str(value) for name, value in place.items()}
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            with distributed.join_process_group():
                found = time_work(images, options, Path(folder) / "rows")
                if distributed.is_rank_zero():
                    (Path(folder) / "found.json").write_text(json.dumps(found))
            os._exit(0)
        for pid in pids:
            os.waitpid(pid, 0)
        return json.loads((Path(folder) / "found.json").read_text())


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--full", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--backbone", default="mobilenetv2_100")
    options = parser.parse_args()
    torch.set_num_threads(1)
    table = load_table("office31")
    table = table.take(np.sort(np.random.default_rng(0).permutation(len(table))[: max(options.images, options.full)]))
    images = Images(table, inspect_files(table))
    rounds = [(run_processes(1, images, options), run_processes(2, images, options)) for _ in range(options.rounds)]
    print(
        machine.describe(),
        f"\n{options.backbone}, n = {options.images} images of Office-31 (full: {options.full}), "
        f"{options.rounds} rounds",
        sep="",
    )
    lines = [["", "one process s", "two processes s", "times"]]
    for kind in rounds[0][0]:
        one, two = (statistics.median(seconds[at][kind] for seconds in rounds) for at in (0, 1))
        times = statistics.median(a[kind] / b[kind] for a, b in rounds)
        lines.append([kind, f"{one:.2f}", f"{two:.2f}", f"{times:.2f}"])
    print(machine.format_table(lines))
    for kind in rounds[0][1].keys() - rounds[0][0].keys():
        took = statistics.median(two[kind] for _, two in rounds)
        print(f"to {kind} numbers of two processes: {1000 * took:.1f} ms")


if __name__ == "__main__":
    main()
