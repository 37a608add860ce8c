"""Task transfer: of what use for one question is a backbone that learnt another?

Half of the objects of Office-31 teach it their names alone, their domains alone, or both. Then it is frozen, and linear
heads read objects and domains from it: of the same images, and of the other half, which it never saw. Of the variance
of its features there, what share lies between objects, and what between domains?
"""

from dataclasses import replace

import numpy as np
from studies.class_variance import between_class_shares

from transfer import BackboneConfig, DataConfig, LearnConfig, PolicyConfig, TrainConfig, train
from transfer.cli.main import script
from transfer.config.train import CacheConfig
from transfer.feature_cache import TrunkCache
from transfer.report.text import score_text, text_table
from transfer.runs.seeds import merge_seeds
from transfer.training.setup import read_images


def main(config: TrainConfig) -> None:
    cache, seeds, found = TrunkCache(config.cache), config.run.seeds or (config.run.seed,), {}
    images = read_images(config.data, cache.disk_cache)
    halves = [images.of(images.table.objects[start::2]) for start in (0, 1)]
    for run in [replace(config.run, seed=seed, seeds=(), out=None) for seed in seeds]:
        starts = {"nothing": None}
        for heads in [replace(config.heads, heads=kind) for kind in ("separate", "dual")]:
            models = train(replace(config, heads=heads, run=run), images=halves[0], cache=cache).models
            starts |= {part or "both": model.backbone for part, model in models.items()}
        for name, start in starts.items():
            for results, some in zip(found.setdefault(name, ([], [])), halves, strict=True):
                print(f"\nlearnt before: {name}; now {', '.join(some.table.objects[:3])}, ...")
                probe = train(replace(config, policy=PolicyConfig(), run=run), images=some, cache=cache, backbone=start)
                feed = cache.feed(probe.models[""], some.table.paths, some.inspection.sha256, batch_size=256)
                _, x = feed.load_all_views(np.arange(len(some.table)))
                results.append(probe.result | {"between": between_class_shares(some.table, x.cpu().numpy())})
    rows = [[name] for name in found]
    for row, both in zip(rows, found.values(), strict=True):
        same, other = (merge_seeds(seeds, some, ("test", "between")) for some in both)
        for result, *what in ((same, "accuracy", "test"), (other, "accuracy", "test"), (other, "share", "between")):
            row += [score_text(result, head, *what).partition(" [")[0] for head in ("object", "domain")]
    head = ["learnt before", "object", "domain", "other objects", "their domain", "between objects", "between domains"]
    print("\n" + text_table(head, rows))


if __name__ == "__main__":
    learn, cache = LearnConfig(epochs=6, batch_size=32, patience=0), CacheConfig(cut_precision="float32")
    data, backbone, policy = DataConfig("office31"), BackboneConfig("mobilenetv2_100"), PolicyConfig("partial:2")
    raise SystemExit(script(main, TrainConfig(data, backbone, policy=policy, learn=learn, cache=cache)))
