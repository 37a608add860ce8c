"""Wrong labels: how many does the ranking of `transfer inspect` find, and what does a review of them gain?

Of the training images (80 %), 0, 5, 10 or 20 % get a wrong label: any other class, or the one that theirs is most
confused with. "found": the share of these among the 20 % of the images ranked first; "named": the share of images that
are suspects, "right": how many of these are wrong indeed. In three rounds the most doubtful images are corrected and
all are ranked again: "seen" is the share of images, "mended" of wrong labels. Then the accuracy of a probe on the other
20 % of the images: trained on the wrong labels ("before"), after these rounds, and on correct labels. All in %.
"""

import numpy as np
import torch

from transfer import InspectConfig
from transfer.advice.transferability.folds import assign_folds
from transfer.cli.main import script
from transfer.curation.features import load_data_set_features
from transfer.curation.inspection.label_suspects import rank_labels
from transfer.data.duplicates import group_near_duplicates
from transfer.report.text import text_table
from transfer.semi_supervised.seed_probe import SeedProbe, scale_features

CASES = (("uniform", 0.0), *((kind, rate) for kind in ("uniform", "confused") for rate in (0.05, 0.1, 0.2)))
SEEDS, ROUNDS = 5, 3


def flip(features, truth, groups, kind, rate, seed):
    rng, known, classes = np.random.default_rng(seed), np.flatnonzero(truth >= 0), truth.max() + 1
    other = (truth + rng.integers(1, classes, len(truth))) % classes
    if kind == "confused":
        p = rank_labels(features, truth, groups, seed).probabilities
        means = np.stack([p[truth == k].mean(0) * (np.arange(classes) != k) for k in range(classes)])
        other = means.argmax(1)[truth]
    rows, labels = rng.permutation(known)[: round(rate * len(known))], truth.copy()
    labels[rows] = other[rows]
    return labels


def accuracy(features, labels, truth, test, seed):
    probe = SeedProbe(scale_features(torch.from_numpy(features)), labels, truth.max() + 1)
    _, l2 = probe.predict_by_fold(assign_folds(labels[~test], seed=seed))
    return (probe.predict(l2).argmax(1) == truth)[test].mean()


def measure(features, truth, groups, kind, rate, seed):
    test = assign_folds(truth, groups, seed=seed) == 0
    correct = np.where(test, -1, truth)  # an image of unknown label is neither ranked nor trained on
    given = flip(features, correct, groups, kind, rate, seed)
    first, labels, seen = rank_labels(features, given, groups, seed), given, np.zeros(len(truth), bool)
    for _ in range(ROUNDS):
        seen[rank_labels(features, labels, groups, seed).doubtful] = True
        labels = np.where(seen, correct, given)
    wrong, n = given != correct, (~test).sum()
    found = [wrong[rows].sum() for rows in (first.order[: round(0.2 * n)], first.suspects)]
    shares = [found[0] / max(wrong.sum(), 1), len(first.suspects) / n, found[1] / max(len(first.suspects), 1)]
    shares += [seen.sum() / n, (wrong & seen).sum() / max(wrong.sum(), 1)]
    return [*shares, *(accuracy(features, each, truth, test, seed) for each in (given, labels, correct))]


def main(config: InspectConfig) -> None:
    data = load_data_set_features(config.images, config.backbone, device=config.device)
    groups, rows = group_near_duplicates(data.inspection), []
    for kind, rate in CASES:
        scores = [measure(data.features, data.table.object, groups, kind, rate, seed) for seed in range(SEEDS)]
        rows.append([f"{kind} {rate:.0%}" if rate else "none", *(f"{100 * x:.1f}" for x in np.mean(scores, 0))])
    head = ["object labels", "found", "named", "right", "seen", "mended", "before", "after", "correct"]
    print("\n" + text_table(head, rows))


if __name__ == "__main__":
    raise SystemExit(script(main, InspectConfig()))
