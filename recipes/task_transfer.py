"""Task transfer: of what use is a backbone that learnt one question for another?

Half of the objects of Office-31 are learnt from: their names alone, their domains alone, or both. Each backbone that
comes of it is then frozen, and linear heads read from it objects and domains of the same images, and of the other
half, whose objects it never saw: a similar question to one, a dissimilar one to the other.
"""

from dataclasses import replace

from transfer import BackboneConfig, DataConfig, LearnConfig, PolicyConfig, TrainConfig, train
from transfer.cache import TrunkCache
from transfer.cli import script
from transfer.config import CacheConfig
from transfer.learn.setup import read_images
from transfer.learn.summary import over_seeds
from transfer.report.tables import figure, table


def main(config: TrainConfig) -> None:
    cache, seeds, found = TrunkCache(config.cache), config.run.seeds or (config.run.seed,), {}
    images = read_images(config.data, cache.store)
    halves = [images.of(images.table.objects[start::2]) for start in (0, 1)]
    for seed in seeds:
        one = replace(config, run=replace(config.run, seed=seed, seeds=(), out=None))
        starts = {"nothing more": None}
        for heads in ("separate", "dual"):
            print(f"\n{heads}, seed {seed}")
            run = train(replace(one, heads=replace(config.heads, heads=heads)), images=halves[0], cache=cache)
            starts |= {part or "both": model.backbone for part, model in run.models.items()}
        for name, backbone in starts.items():
            for half, some in enumerate(halves):
                print(f"\n{('these', 'other')[half]} objects and their domains, from a backbone that learnt {name}")
                probe = replace(one, policy=replace(config.policy, policy="linear_probe"))
                result = train(probe, images=some, cache=cache, backbone=backbone).result
                found.setdefault(name, ([], []))[half].append(result)
    rows = []
    for name, both in found.items():
        results = [over_seeds(seeds, some) for some in both]
        rows.append([name, *(figure(r, head).partition(" [")[0] for r in results for head in ("object", "domain"))])
    head = ["pretrained, then learnt", "object", "domain", "other objects", "their domain"]
    print("\n" + table(head, rows))


if __name__ == "__main__":
    learn, policy = LearnConfig(epochs=12, batch_size=32, patience=0), PolicyConfig("partial:2")
    config = TrainConfig(DataConfig("office31"), BackboneConfig("mobilenetv2_100"), policy=policy, learn=learn)
    raise SystemExit(script(main, replace(config, cache=CacheConfig(cut_precision="float32"))))
