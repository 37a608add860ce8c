"""Images of no known class: how well does the unknown score that a run chooses find them, against each single score?

In each seed a quarter of the classes is left out of the whole run; its images, and those of --others, are to be found
among the test images of the other classes (AUROC, mean ± standard deviation over seeds).
"""

from collections import defaultdict
from dataclasses import dataclass, field, replace
from statistics import fmean

import numpy as np
import torch

from transfer import RunConfig, TrainConfig, train
from transfer.cli.main import script
from transfer.config.train import DataConfig
from transfer.evaluation.uncertainty.unknown import UNKNOWN_SCORES, UnknownScore, measure_auroc
from transfer.feature_cache import Feed, TrunkCache
from transfer.model import TransferModel
from transfer.report.console.tables import mean_sd_text, text_table
from transfer.training.setup import Images, read_images, split_images

CHOSEN = "as chosen"


@dataclass(frozen=True)
class UnknownConfig:
    """Find images of classes that a linear probe has not seen."""

    train: TrainConfig = field(default_factory=lambda: TrainConfig(run=RunConfig(seeds=(0, 1, 2, 3, 4))))
    others: tuple[str, ...] = ()
    """Further data sets of which no image shows a known class."""


def main(config: UnknownConfig) -> None:
    cache = TrunkCache(config.train.cache)
    images = read_images(config.train.data, cache.disk_cache)
    others = {name: read_images(DataConfig(name), cache.disk_cache) for name in config.others}
    aurocs: dict[tuple[str, str], list[float]] = defaultdict(list)
    chosen, shares = [], []
    for seed in config.train.run.seeds:
        names = np.random.default_rng(seed).permutation(images.table.objects).tolist()
        few = max(1, len(names) // 4)
        known, unknown = images.of(names[few:]), {"left-out classes": images.of(names[:few])} | others
        run_config = replace(config.train, run=replace(config.train.run, seed=seed, seeds=(), out=None))
        run = train(run_config, images=known, cache=cache)
        model, splits = run.models[""], split_images(known, run_config.data, seed)
        fitted = np.union1d(splits.train, splits.val)
        fitted = fitted[known.table.object[fitted] >= 0]
        features = _feed(cache, model, known).load_all_views(fitted)[1]
        labels = torch.from_numpy(known.table.object[fitted])
        scores = {name: UnknownScore.fitted(name, features, labels) for name in UNKNOWN_SCORES}
        assert run.uncertainty
        assert run.uncertainty.unknown
        for name, score in (scores | {CHOSEN: run.uncertainty.unknown}).items():
            raw = name != CHOSEN
            inside = score.score_rows(model, _feed(cache, model, known), splits.test, raw=raw)
            for where, strange in unknown.items():
                rows = np.arange(len(strange.table))
                found = score.score_rows(model, _feed(cache, model, strange), rows, raw=raw)
                aurocs[name, where].append(measure_auroc(inside, found))
        chosen.append(run.uncertainty.unknown.name)
        shares.append(run.result["uncertainty"]["unknown"]["strange"]["share"])
    places = list(dict.fromkeys(where for _, where in aurocs))
    cells = [[name, *(mean_sd_text(aurocs[name, where]) for where in places)] for name in (*UNKNOWN_SCORES, CHOSEN)]
    print("\n" + text_table(["score", *places], cells))
    counts = ", ".join(f"{name} {chosen.count(name)}" for name in UNKNOWN_SCORES if name in chosen)
    print(f"\nchosen: {counts}; known test images above 0.95: {100 * fmean(shares):.1f} %")


def _feed(cache: TrunkCache, model: TransferModel, images: Images) -> Feed:
    return cache.feed(model, images.table.paths, images.inspection.sha256, batch_size=256)


if __name__ == "__main__":
    raise SystemExit(script(main, UnknownConfig()))
