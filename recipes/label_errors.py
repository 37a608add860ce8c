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
from transfer.report.console.tables import text_table
from transfer.semi_supervised.seed_probe import SeedProbe, scale_features

CASES = (("uniform", 0.0), *((kind, rate) for kind in ("uniform", "confused") for rate in (0.05, 0.1, 0.2)))
SEEDS, ROUNDS = 5, 3


def flip(labels, probabilities, kind, rate, seed):
    rng, classes = np.random.default_rng(seed), labels.max() + 1
    means = np.stack([probabilities[labels == k].mean(0) * (np.arange(classes) != k) for k in range(classes)])
    any_other = (labels + rng.integers(1, classes, len(labels))) % classes
    known = np.flatnonzero(labels >= 0)
    rows, flipped = rng.permutation(known)[: round(rate * len(known))], labels.copy()
    flipped[rows] = (any_other if kind == "uniform" else means.argmax(1)[labels])[rows]
    return flipped


def measure(features, truth, groups, seed):
    """Return the scores of each case."""
    test = assign_folds(truth, groups, seed=seed) == 0
    correct = np.where(test, -1, truth)  # an image of unknown label is neither ranked nor trained on
    clean, n, scores = rank_labels(features, correct, groups, seed), (~test).sum(), []
    x = scale_features(torch.from_numpy(features))

    def accuracy(labels, l2):
        return (SeedProbe(x, labels, truth.max() + 1).predict(l2).argmax(1) == truth)[test].mean()

    best = accuracy(correct, clean.l2)
    for kind, rate in CASES:
        given = flip(correct, clean.probabilities, kind, rate, seed)
        first = ranking = rank_labels(features, given, groups, seed)
        seen = np.zeros(len(truth), bool)
        for _ in range(ROUNDS):
            seen[ranking.doubtful] = True
            mended = np.where(seen, correct, given)
            ranking = rank_labels(features, mended, groups, seed)
        wrong = given != correct
        found, right = (wrong[rows].sum() for rows in (first.order[: round(0.2 * n)], first.suspects))
        count, named = max(wrong.sum(), 1), len(first.suspects)
        shares = found / count, named / n, right / max(named, 1), seen.sum() / n, (wrong & seen).sum() / count
        scores.append([*shares, accuracy(given, first.l2), accuracy(mended, ranking.l2), best])
    return scores


def main(config: InspectConfig) -> None:
    data = load_data_set_features(config.images, config.backbone, device=config.device)
    groups = group_near_duplicates(data.inspection)
    scores = np.mean([measure(data.features, data.table.object, groups, seed) for seed in range(SEEDS)], 0)
    names = [f"{kind} {rate:.0%}" if rate else "none" for kind, rate in CASES]
    head = ["object labels", "found", "named", "right", "seen", "mended", "before", "after", "correct"]
    rows = [[name, *(f"{100 * x:.1f}" for x in of_case)] for name, of_case in zip(names, scores, strict=True)]
    print("\n" + text_table(head, rows))


if __name__ == "__main__":
    raise SystemExit(script(main, InspectConfig()))
