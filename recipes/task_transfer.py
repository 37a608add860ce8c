"""Task transfer: how useful is a backbone trained for one task when the task is another?

The backbone is trained on half of the objects of Office-31: for their names only, their domains only, or both. Then it
is frozen, and linear heads for object and domain are trained on the same half, and on the other, unseen half. The last
columns have the shares of feature variance between objects and between domains on the unseen half.
"""

from dataclasses import replace

import numpy as np
from studies.class_variance import between_class_shares

from transfer import DataConfig, LearnConfig, PolicyConfig, TrainConfig, train
from transfer.cli.main import script
from transfer.config.train import CacheConfig
from transfer.feature_cache import TrunkCache
from transfer.report.console.tables import text_table
from transfer.runs.seeds import merge_seeds, score_text
from transfer.training.setup import read_images


def main(config: TrainConfig) -> None:
    cache, seeds, by_start = TrunkCache(config.cache), config.run.seeds or (config.run.seed,), {}
    images = read_images(config.data, cache.disk_cache)
    halves = [images.of(images.table.objects[start::2]) for start in (0, 1)]
    for run in [replace(config.run, seed=seed, seeds=(), out=None) for seed in seeds]:
        starts = {"ImageNet only": None}
        for heads in [replace(config.heads, heads=kind) for kind in ("separate", "dual")]:
            models = train(replace(config, heads=heads, run=run), images=halves[0], cache=cache).models
            starts |= {part or "both": model.backbone for part, model in models.items()}
        for name, start in starts.items():
            for results, half in zip(by_start.setdefault(name, ([], [])), halves, strict=True):
                print(f"\npretrained on: {name}; now {', '.join(half.table.objects[:3])}, ...")
                probe = train(replace(config, policy=PolicyConfig(), run=run), images=half, cache=cache, backbone=start)
                feed = cache.feed(probe.models[""], half.table.paths, half.inspection.sha256, batch_size=256)
                _, x = feed.load_all_views(np.arange(len(half.table)))
                results.append(probe.result | {"between": between_class_shares(half.table, x.cpu().numpy())})
    rows = [[name] for name in by_start]
    for row, halves_results in zip(rows, by_start.values(), strict=True):
        same, other = (merge_seeds(seeds, results, ("test", "between")) for results in halves_results)
        for result, *keys in ((same, "accuracy", "test"), (other, "accuracy", "test"), (other, "share", "between")):
            row += [score_text(result, head, *keys).partition(" [")[0] for head in ("object", "domain")]
    head = ["fine-tuned on", "object", "domain", "other objects", "their domain", "between objects", "between domains"]
    print("\n" + text_table(head, rows))


if __name__ == "__main__":
    learn, cache = LearnConfig(epochs=6, batch_size=32, patience=0), CacheConfig(cut_precision="float32")
    data, policy = DataConfig("office31"), PolicyConfig("partial:2")
    raise SystemExit(script(main, TrainConfig(data, policy=policy, learn=learn, cache=cache)))
