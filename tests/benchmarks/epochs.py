"""Seconds of a training epoch of partial:k on Office-31, with and without the trunk cache.

python tests/benchmarks/epochs.py [--policies partial:1 partial:2 ...] [--images N]

Both run the same epoch (same rows in the same order, dual heads, batch 64). Without the cache, the frozen trunk runs
over every image again, folded and on all cores. The cache is filled before. Usual loop: ImageFolder, DataLoader (the
better of 0 and 2 processes), timm's network with the same trainable stages, all norms in eval mode.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import baseline
import machine
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Subset

from transfer.backbones.backbone import Backbone
from transfer.config.train import BackboneConfig, CacheConfig, DataConfig, PolicyConfig, TrainConfig
from transfer.data.sets.office31 import find_office31
from transfer.data.splits import split
from transfer.disk_cache import DiskCache
from transfer.evaluation.predictions import target_tensors
from transfer.feature_cache import TrunkCache
from transfer.heads.table_heads import head_specs
from transfer.runtime.malloc import keep_freed_memory
from transfer.training import optimizers
from transfer.training.epoch import EpochTrainer, TrainingData
from transfer.training.setup import new_model, read_images


def time_usual_epoch(backbone: Backbone, policy: str, paths: set[str]) -> float:
    """Return the seconds of an epoch of the usual loop with the trainable stages of `policy`."""
    model = baseline.load_network(backbone.name, Path(os.environ["TRANSFER_WEIGHTS"]))
    lowest = len(backbone.stages) - int(policy.removeprefix("partial:"))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(backbone.stage_of(name) >= lowest)
    everything = baseline.OfficeObjects(find_office31(), model)
    subset = Subset(everything, [i for i, (path, _) in enumerate(everything.samples) if path in paths])
    assert len(subset) == len(paths)
    heads = nn.Linear(model.num_features, 31), nn.Linear(model.num_features, 3)
    loaders = (DataLoader(subset, baseline.BATCH, shuffle=True, num_workers=workers) for workers in (0, 2))
    return min(baseline.time_epoch(model, batches, heads) for batches in loaders)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--policies", nargs="+", default=["partial:1", "partial:2", "partial:3", "partial:4"])
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--backbone", default="mobilenetv2_100")
    options = parser.parse_args()
    images = read_images(DataConfig(data="office31"))
    parts = split(images.table, images.inspection, test=0.2, val=0.2, seed=0)
    rows = np.random.default_rng(0).permutation(parts.train)[: options.images]
    data = TrainingData(images.table, images.inspection.sha256, rows, rows[:0])
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    heading = ["policy", "cached s", "without s", "usual s", "without x", "usual x", "cached images/s"]
    lines = [heading]
    for policy in options.policies:
        config = TrainConfig(
            backbone=BackboneConfig(options.backbone), policy=PolicyConfig(policy, statistics="learning")
        )
        model, plan = new_model(config, head_specs(images.table, parts, config.heads)[0][""], 0, device)
        phase = plan.phases[0]
        model.freeze(phase)
        optimizer = optimizers.build_optimizer(model, plan, config.learn)
        labels = target_tensors(images.table, model)
        seconds: dict[str, list[float]] = {"cached": [], "without": []}
        with tempfile.TemporaryDirectory() as folder:
            feeds = {
                "cached": TrunkCache(disk_cache=DiskCache(Path(folder))),
                "without": TrunkCache(CacheConfig(cache=False)),
            }
            for name, cache in feeds.items():
                feed = cache.feed(model, images.table.paths, data.digests, batch_size=64)
                with keep_freed_memory():
                    feed.prepare(rows)
                    for _ in range(options.rounds + (name == "cached")):
                        started = time.perf_counter()
                        EpochTrainer(model, feed, data, labels, optimizer, phase, config.learn).run_epoch(
                            (1, 1), [0, 0, 1]
                        )
                        seconds[name].append(time.perf_counter() - started)
        cached, without = min(seconds["cached"]), min(seconds["without"])
        plain = time_usual_epoch(model.backbone, policy, set(images.table.paths[rows].tolist()))
        times = [f"{seconds / cached:.1f}" for seconds in (without, plain)]
        lines.append([policy, f"{cached:.2f}", f"{without:.2f}", f"{plain:.1f}", *times, f"{len(rows) / cached:.0f}"])
    print(
        machine.describe(),
        f"\n{options.backbone}, n = {len(rows)} training images of Office-31, {options.rounds} rounds",
        sep="",
    )
    print(machine.format_table(lines))


if __name__ == "__main__":
    main()
