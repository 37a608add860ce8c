"""Order of backbones: that of advice before any training, against that by test accuracy of a linear probe."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from statistics import fmean
from typing import Any

import numpy as np
from scipy.stats import kendalltau
from tqdm.auto import tqdm

from studies.four_cases_study import parse_case
from studies.regret import find_best_by_other_seeds
from transfer.backbones.shortlist import read_shortlist
from transfer.config.checked import Config
from transfer.config.lists import CommaNames
from transfer.config.serialise import to_dict
from transfer.config.train import RunConfig, TrainConfig
from transfer.errors import TransferError
from transfer.feature_cache import TrunkCache
from transfer.report.console.tables import text_table
from transfer.runs.folder import RunFolder
from transfer.training.compare import correct_predictions
from transfer.training.setup import Images, read_images, split_images
from transfer.training.train import train
from transfer.tuning.rank_backbones import rank_backbones

Record = dict[str, Any]

RECORD_KEY = ("case", "seed", "backbone")
# Of each rule the score by which it orders backbones, higher first, from a record.
RULES: dict[str, Callable[[Record], tuple[float, ...]]] = {
    "advised": lambda record: (-record["place"],),
    "accuracy of the probe": lambda record: (record["linear_probe"], -record["loss"]),
    "loss of the probe": lambda record: (-record["loss"],),
    "LogME": lambda record: (record["logme"],),
    "parameters": lambda record: (record["parameters"],),
    "ImageNet": lambda record: (record["top1"] or 0.0,),
}

log = logging.getLogger(f"transfer.{__name__}")  # printed as the command's own log lines are


@dataclass(frozen=True)
class RankingConfig(Config):
    """Order backbones by advice, and compare with the order by the test accuracy of a linear probe."""

    train: TrainConfig = field(default_factory=TrainConfig)
    cases: CommaNames = ()
    """Data sets as for --data, with @N for N labels per class and domain, such as flowers12,neu_cls@5 (default:
    --data)."""
    backbones: CommaNames = ("glyphnet", "tf_efficientnet_lite0")
    """Backbones to order."""
    among: CommaNames = ()
    """Some of them, to order alone in a second table."""


def run_backbone_ranking(config: RankingConfig) -> list[Record]:
    """Return a record for each case, seed and backbone; if `config` names a folder, it is in metrics.jsonl at once.

    Returns
    -------
    list of dict
        ``case``, ``seed``, ``backbone``; its ``place`` by advice, from 1, and the row of
        :func:`transfer.tuning.rank_backbones.rank_backbones`; ``parameters``, ``top1`` (of ImageNet in percent, None if
        there is none); ``accuracy`` of a linear probe on ``test_images`` images that the ranking did not see.

    Raises
    ------
    TransferError
        Fewer than two backbones; no test images.
    """
    base, cache = config.train, TrunkCache(config.train.cache)
    if len(set(config.backbones)) < 2 or not set(config.among) <= set(config.backbones):
        raise TransferError("--backbones needs two backbones or more, and --among some of them")
    out, seeds = base.run.out, base.run.seeds or (base.run.seed,)
    folder = RunFolder(out, to_dict(config), overwrite=base.run.overwrite, resume=base.run.resume) if out else None
    records = {_key(record): record for record in folder.read_metrics(RECORD_KEY)} if folder else {}
    cases = {text: parse_case(text, base.data) for text in config.cases or (base.data.data,)}
    with tqdm(total=len(cases) * len(seeds), desc="cases", unit="seed", disable=None) as bar:
        for text, data in cases.items():
            images = read_images(data, cache.disk_cache)
            for seed in seeds:
                missing = [name for name in config.backbones if (text, seed, name) not in records]
                case_config = replace(base, data=data, run=RunConfig(seed=seed))
                measure = partial(measure_backbones, case_config, config.backbones, images, cache)
                for record in measure(missing) if missing else ():
                    record = {"case": text, "seed": seed} | record
                    records[_key(record)] = record
                    if folder:
                        folder.append_metrics(record)
                bar.update()
    wanted = {(text, seed, name) for text in cases for seed in seeds for name in config.backbones}
    return [record for key, record in records.items() if key in wanted]


def measure_backbones(
    config: TrainConfig, names: Sequence[str], images: Images, cache: TrunkCache, wanted: Sequence[str]
) -> Iterator[Record]:
    """Rank `names`, and yield a record for each of those that are `wanted`, best by advice first.

    Raises
    ------
    TransferError
        There are no test images.
    """
    parts = split_images(images, config.data, config.run.seed)
    if not (images.table.object[parts.test] >= 0).any():
        raise TransferError(f"{images.table.name}: no test images to measure accuracy on: give --test a fraction")
    candidates = {name: replace(config.backbone, backbone=name) for name in names}
    top1 = {name: top for name, top, *_ in read_shortlist()}
    for place, row in enumerate(rank_backbones(config, candidates, images.hide(parts.test), parts, cache), 1):
        name = row.pop("name")
        if name not in wanted:
            continue
        run = train(replace(config, backbone=candidates[name]), images=images, cache=cache)
        correct, _ = correct_predictions(run, "object")
        log.info("%s: accuracy on %d test images %.3f", name, len(correct), correct.mean())
        network = next(iter(run.models.values())).backbone
        found = {"parameters": sum(p.numel() for p in network.parameters()), "top1": find_top1(name, top1)}
        yield (
            {"backbone": name, "accuracy": float(correct.mean()), "test_images": len(correct), "place": place}
            | row
            | found
        )


def find_top1(name: str, known: Mapping[str, float | None]) -> float | None:
    """Return the ImageNet accuracy of a backbone in `known`, which may name its weights; None: there is none.

    Examples
    --------
    >>> find_top1("resnet18", {"resnet34.a1_in1k": 77.9, "resnet18.a1_in1k": 73.2}), find_top1("glyphnet", {})
    (73.2, None)
    """
    return next((top for full, top in known.items() if name in (full, full.partition(".")[0])), None)


def compare_orders(records: Sequence[Record], backbones: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return for each rule how well it orders `backbones` in one case.

    Returns
    -------
    dict of dict
        By rule ``tau``, Kendall's tau-b of its order and the test accuracies, the mean over seeds, and ``regret``: the
        points by which the test accuracy of its first choice is below that of the best backbone by the other seeds
        (with one seed, by itself). The rule "other seeds" orders by the mean test accuracy of the other seeds: it is
        what chance leaves to any rule.
    """
    seeds = sorted({record["seed"] for record in records})
    found = {(record["seed"], record["backbone"]): record for record in records}
    accuracy = {name: [found[seed, name]["accuracy"] for seed in seeds] for name in backbones}
    best = find_best_by_other_seeds(accuracy) or [max(accuracy, key=lambda name: accuracy[name][0])]
    scores = {rule: [[score(found[seed, n]) for n in backbones] for seed in seeds] for rule, score in RULES.items()}
    if len(seeds) > 1:
        table = np.array(list(accuracy.values()))
        scores["other seeds"] = [[(mean,) for mean in np.delete(table, i, 1).mean(1)] for i in range(len(seeds))]
    result = {}
    for rule, by_seed in scores.items():
        first = [backbones[each.index(max(each))] for each in by_seed]
        regrets = [accuracy[b][i] - accuracy[name][i] for i, (b, name) in enumerate(zip(best, first, strict=True))]
        taus = [compute_tau(each, [accuracy[n][i] for n in backbones]) for i, each in enumerate(by_seed)]
        result[rule] = {"tau": fmean(taus), "regret": 100 * fmean(regrets)}
    return result


def compute_tau(scores: Sequence[tuple[float, ...]], accuracies: Sequence[float]) -> float:
    """Return Kendall's tau-b of scores, which are compared as tuples, and accuracies; 0 where either are all equal.

    Examples
    --------
    >>> compute_tau([(1, 0), (1, 2), (3, 0)], [0.7, 0.8, 0.9]), compute_tau([(1,), (2,)], [0.9, 0.8])
    (1.0, -1.0)
    >>> compute_tau([(1,), (2,)], [0.5, 0.5])
    0.0
    """
    ranks = [sorted(set(scores)).index(score) for score in scores]
    tau = float(kendalltau(ranks, accuracies).statistic)
    return 0.0 if np.isnan(tau) else round(tau, 12)


def ranking_text(records: Sequence[Record], backbones: Sequence[str]) -> str:
    """Return two tables: test accuracy by case and backbone; tau and regret by rule and case."""
    cases = list(dict.fromkeys(record["case"] for record in records))
    by_case = {case: [r for r in records if r["case"] == case and r["backbone"] in backbones] for case in cases}
    seeds = len({record["seed"] for record in records})
    rows = [
        [name, *(f"{fmean(r['accuracy'] for r in by_case[case] if r['backbone'] == name):.3f}" for case in cases)]
        for name in backbones
    ]
    rows.append(["test images", *(str(by_case[case][0]["test_images"]) for case in cases)])
    accuracies = text_table([f"test accuracy, {seeds} seeds", *cases], rows)
    compared = {case: compare_orders(by_case[case], backbones) for case in cases}
    rows = []
    for rule in compared[cases[0]]:
        results = [compared[case][rule] for case in cases]
        mean = {name: fmean(result[name] for result in results) for name in results[0]}
        rows.append([rule, *(f"{r['tau']:+.2f} {r['regret']:+.1f}" for r in (*results, mean))])
    return f"{accuracies}\n\n{text_table(['tau-b, regret (points)', *cases, 'mean'], rows)}"


def _key(record: Record) -> tuple[str, int, str]:
    return record["case"], record["seed"], record["backbone"]
