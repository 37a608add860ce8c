"""Averages: of weights, of the ends of several cycles, of runs, of views of a test image. What does each add?

Each learns from the images that the plain run beside it has; --seeds 0,1,2 draws three splits.
"""

from dataclasses import replace
from statistics import fmean

from transfer import PolicyConfig, TrainConfig, train
from transfer.cli.main import script
from transfer.config.train import ViewConfig
from transfer.evaluation.ensemble import average_predictions
from transfer.evaluation.predictions import evaluate_predictions
from transfer.evaluation.tta import predict_views
from transfer.feature_cache import TrunkCache
from transfer.report.text import text_table
from transfer.training.setup import read_images

ALONG = {"EMA": {"average": "ema"}, "SWA": {"average": "swa", "schedule": "constant"}, "snapshots": {"cycles": 3}}


def main(config: TrainConfig) -> None:
    cache, scores = TrunkCache(config.cache), {}
    images = read_images(config.data, cache.disk_cache)
    for seed in config.run.seeds or (config.run.seed,):

        def run(number: int = 0, seed: int = seed, **learn: object):
            one = replace(config, data=replace(config.data, split_seed=seed), learn=replace(config.learn, **learn))
            draws = replace(config.run, seed=seed + number, seeds=(), out=None)
            return train(replace(one, run=draws), images=images, cache=cache)

        plain, *others = (run(number) for number in (0, 1000, 2000))
        (tested, answers), model = plain.tests[0], plain.models[""]
        size = model.backbone.preprocessing.input_size[1]
        views = {"ten crops": ViewConfig(10), "two sizes": ViewConfig(test_sizes=(size, size * 5 // 4))}
        given = {
            "plain": answers,
            "three runs": average_predictions([answers, *(other.tests[0][1] for other in others)]),
        }
        given |= {name: predict_views(model, tested.paths, view) for name, view in views.items()}
        found = {name: evaluate_predictions(tested, some) for name, some in given.items()}
        for name, learn in ALONG.items():
            result = run(**learn).result
            found[name] = result.get("snapshots", result)["test"]
        for name, report in found.items():
            scores.setdefault(name, []).append(report["object"]["accuracy"])
    gains = {name: [a - b for a, b in zip(some, scores["plain"], strict=True)] for name, some in scores.items()}
    rows = [[name, f"{fmean(scores[name]):.3f}", " ".join(f"{x:+.3f}" for x in some)] for name, some in gains.items()]
    print("\n" + text_table(["", "object", "gain by seed"], rows))


if __name__ == "__main__":
    raise SystemExit(script(main, TrainConfig(policy=PolicyConfig("partial:1"))))
