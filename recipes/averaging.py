"""Averages of weights, of cyclic snapshots, of runs, and of views of a test image: how much does each add?

All are trained on the same images as the plain run; --seeds 0,1,2 repeats it on three splits.
"""

from dataclasses import replace
from statistics import fmean

from transfer import PolicyConfig, TrainConfig, train
from transfer.cli.main import script
from transfer.config.train import ViewConfig
from transfer.evaluation.averages.ensemble import average_predictions
from transfer.evaluation.averages.tta import predict_views
from transfer.evaluation.predictions import evaluate_predictions
from transfer.feature_cache import TrunkCache
from transfer.report.console.tables import text_table
from transfer.training.setup import read_images

LEARN = {"EMA": {"average": "ema"}, "SWA": {"average": "swa", "schedule": "constant"}, "snapshots": {"cycles": 3}}


def main(config: TrainConfig) -> None:
    cache, scores = TrunkCache(config.cache), {}
    images = read_images(config.data, cache.disk_cache)
    for seed in config.run.seeds or (config.run.seed,):

        def run(number: int = 0, seed: int = seed, **learn: object):
            settings = {"data": replace(config.data, split_seed=seed), "learn": replace(config.learn, **learn)}
            run_config = replace(config.run, seed=seed + number, seeds=(), out=None)
            return train(replace(config, run=run_config, **settings), images=images, cache=cache)

        plain, *others = (run(number) for number in (0, 1000, 2000))
        (test, probabilities), model = plain.tests[0], plain.models[""]
        size = model.backbone.preprocessing.input_size[1]
        views = {"ten crops": ViewConfig(10), "two sizes": ViewConfig(test_sizes=(size, size * 5 // 4))}
        predictions = {"plain": probabilities}
        predictions["three runs"] = average_predictions([probabilities, *(other.tests[0][1] for other in others)])
        predictions |= {name: predict_views(model, test.paths, view) for name, view in views.items()}
        reports = {name: evaluate_predictions(test, values) for name, values in predictions.items()}
        for name, learn in LEARN.items():
            reports[name] = (result := run(**learn).result).get("snapshots", result)["test"]
        for name, report in reports.items():
            scores.setdefault(name, []).append(report["object"]["accuracy"])
    gains = {name: [a - b for a, b in zip(values, scores["plain"], strict=True)] for name, values in scores.items()}
    rows = [[name, f"{fmean(scores[name]):.3f}", " ".join(f"{x:+.3f}" for x in xs)] for name, xs in gains.items()]
    print("\n" + text_table(["", "object", "gain by seed"], rows))


if __name__ == "__main__":
    raise SystemExit(script(main, TrainConfig(policy=PolicyConfig("partial:1")), digits="glyphnet"))
