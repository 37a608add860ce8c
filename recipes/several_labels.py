"""Several labels an image: object, domain and groups as labels; one solved head against one probe per label.

The labels of an image are its object, its domain and the groups of objects that it belongs to. One multilabel head is
solved, or trained with binary cross-entropy or the asymmetric loss. Beside it stands scikit-learn's logistic regression
for each label on the same features, each with an L2 value of its own, chosen on the validation images.
"""

import time
from dataclasses import replace
from statistics import fmean, stdev

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.preprocessing import StandardScaler

from transfer import TrainConfig, train
from transfer.cli.main import script
from transfer.config.shared import RunConfig
from transfer.data.label_sets.cells import mark_labels
from transfer.data.label_sets.combinations import use_label_sets
from transfer.data.table import ImageTable, make_softmax_target, sort_classes
from transfer.estimator import BackboneFeatures
from transfer.feature_cache import TrunkCache
from transfer.heads.multilabel.metrics import choose_threshold, multilabel_metrics
from transfer.report.console.tables import text_table
from transfer.training.setup import Images, read_images, split_images

GROUPS = {
    "electronics": "calculator desktop_computer headphones keyboard laptop_computer mobile_phone monitor mouse phone "
    "printer projector speaker",
    "stationery": "letter_tray paper_notebook pen punchers ring_binder ruler scissors stapler tape_dispenser",
    "furniture": "bookcase desk_chair desk_lamp file_cabinet",
    "container": "back_pack bottle letter_tray mug trash_can",
    "screen": "laptop_computer mobile_phone monitor",
    "even": "0 2 4 6 8",
    "with a loop": "0 6 8 9",
}
C_GRID = 10.0 ** np.arange(-4, 0)
SCORES = ("map", "micro_f1", "macro_f1")


def main(config: TrainConfig) -> None:
    cache = TrunkCache(config.cache)
    images = read_images(config.data, cache.disk_cache)
    images = replace(images, table=label(images.table))
    settings = {
        "solved": config,
        "trained, binary cross-entropy": replace(config, learn=replace(config.learn, probe="trained")),
        "trained, asymmetric": replace(config, learn=replace(config.learn, probe="trained", loss="asymmetric")),
    }
    found: dict[str, list[list[float]]] = {}
    for seed in config.run.seeds or (config.run.seed,):
        for name, each in settings.items():
            start, run = time.perf_counter(), replace(each.run, seed=seed, seeds=(), out=None)
            report = train(replace(each, run=run), images=images, cache=cache).result["test"]["labels"]
            seconds = time.perf_counter() - start
            found.setdefault(name, []).append([*(report[score] for score in SCORES), seconds])
        found.setdefault("scikit-learn, one per label", []).append(fit_separately(config, images, seed))
    rows = [[name, *map(format_mean, zip(*values, strict=True))] for name, values in found.items()]
    print("\n" + text_table(["linear heads", "mAP", "micro-F1", "macro-F1", "seconds"], rows))


def label(table: ImageTable) -> ImageTable:
    """Return `table` with objects, domains and groups as labels."""
    members = {name: text.split() for name, text in GROUPS.items()}
    shown = []
    for domain, thing in zip(table.domain, table.object, strict=True):
        name = table.objects[thing]
        labels = [name, *(group for group, names in members.items() if name in names)]
        shown.append(labels + [table.domains[domain]] * (len(table.domains) > 1))
    classes = sort_classes({each for labels in shown for each in labels})
    target = mark_labels(classes, shown, [[]] * len(shown), np.ones(len(shown), bool))
    blank = {"object": make_softmax_target([""] * len(shown)), "domain": make_softmax_target(["all"] * len(shown))}
    return use_label_sets(replace(table, targets=blank | {"labels": target}))


def fit_separately(config: TrainConfig, images: Images, seed: int) -> list[float]:
    """Return the scores and seconds of a logistic regression for each label, on the same features and split."""
    parts, target = split_images(images, config.data, seed), images.table.targets["labels"]
    features = BackboneFeatures(config.backbone.backbone, cache=config.cache.cache).fit_transform(images.table.paths)
    start = time.perf_counter()
    both, x = np.union1d(parts.train, parts.val), StandardScaler().fit(features[parts.train]).transform(features)
    scores, thresholds = np.zeros((len(parts.test), len(target.classes))), []
    for i, y in enumerate(target.values.T == 1):
        fits = [LogisticRegression(C=c, max_iter=1000).fit(x[parts.train], y[parts.train]) for c in C_GRID]
        held_out = [fit.predict_proba(x[parts.val])[:, 1] for fit in fits]
        best = int(np.argmin([log_loss(y[parts.val], p, labels=[False, True]) for p in held_out]))
        thresholds.append(choose_threshold(y[parts.val], held_out[best]))
        final = LogisticRegression(C=C_GRID[best], max_iter=1000).fit(x[both], y[both])
        scores[:, i] = final.predict_proba(x[parts.test])[:, 1]
    seconds = time.perf_counter() - start
    report = multilabel_metrics(target.values[parts.test], scores, target.classes, np.array(thresholds))
    return [*(report[score] for score in SCORES), seconds]


def format_mean(values: tuple[float, ...]) -> str:
    """Return the mean of `values` with their standard deviation."""
    return f"{fmean(values):.3f} ± {stdev(values):.3f}" if len(values) > 1 else f"{fmean(values):.3f}"


if __name__ == "__main__":
    raise SystemExit(script(main, TrainConfig(run=RunConfig(seeds=(0, 1, 2)))))
