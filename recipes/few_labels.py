"""Few labels: what do unlabelled images add to 1, 2, 3 and 5 labels of each class (and domain)?

The plain policy, and the same with --unlabelled rest: images whose label is not drawn are trained on with propagated
labels, where the comparison on labelled images favours it. Test images are never among them. The gain is the mean over
seeds with its standard deviation; "counted" is the number of seeds that train on unlabelled images.
"""

from dataclasses import replace
from statistics import fmean, stdev

from transfer import RunConfig, TrainConfig, train
from transfer.cli.main import script
from transfer.feature_cache import TrunkCache
from transfer.report.console.tables import text_table
from transfer.training.setup import read_images

SHOTS = (1, 2, 3, 5)


def main(config: TrainConfig) -> None:
    cache, rows = TrunkCache(config.cache), []
    images = read_images(config.data, cache.disk_cache)
    for shots in SHOTS:
        runs: dict[str, list] = {"": [], "rest": []}
        for seed in config.run.seeds or (config.run.seed,):
            for unlabelled, results in runs.items():
                data = replace(config.data, shots=shots, unlabelled=unlabelled or None)
                run = replace(config.run, seed=seed, seeds=(), out=None)
                results.append(train(replace(config, data=data, run=run), images=images, cache=cache).result)
        plain, rest = ([result["test"]["object"]["accuracy"] for result in results] for results in runs.values())
        gains = [100 * (b - a) for a, b in zip(plain, rest, strict=True)]
        spread = f" ± {stdev(gains):.1f}" if len(gains) > 1 else ""
        records = [result.get("unlabelled", {}).get("object") for result in runs["rest"]]
        counted = sum(bool(record and record["weight"]) for record in records)
        seconds = fmean(result["seconds"]["total"] for result in runs["rest"])
        cells = f"{fmean(plain):.3f}", f"{fmean(rest):.3f}", f"{fmean(gains):+.1f}{spread}", counted, f"{seconds:.1f}"
        rows.append([str(shots), *map(str, cells)])
    print("\n" + text_table(["labels", "object", "with unlabelled", "gain in points", "counted", "seconds"], rows))


if __name__ == "__main__":
    raise SystemExit(script(main, TrainConfig(run=RunConfig(seeds=(0, 1, 2)))))
