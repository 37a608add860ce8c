"""`transfer adapt`: a labelled source, an unlabelled target, methods and a rule -> a run with its result."""

import logging
import time
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import numpy as np
from torch import nn

from transfer import freeze
from transfer.adapt import understand
from transfer.adapt.config import AdaptConfig, ShiftConfig
from transfer.adapt.fit import Choice, OnLine, candidate_line, fit
from transfer.adapt.judge import rules
from transfer.adapt.maps import feature_map
from transfer.adapt.methods import find
from transfer.adapt.pair import Pair, pair
from transfer.adapt.stage import Stage, set_up
from transfer.adapt.statistics import NO_NORMS, moving
from transfer.adapt.truth import Truth
from transfer.cache import TrunkCache
from transfer.config import DataConfig, HeadConfig
from transfer.data.table import ImageTable, Target
from transfer.errors import TransferError
from transfer.evaluate import metrics
from transfer.evaluate.answers import Answers, answer, targets
from transfer.freeze import FreezePolicy
from transfer.heads import Heads
from transfer.learn import checkpoint
from transfer.learn.exhibits import exhibits
from transfer.learn.folder import RunFolder
from transfer.learn.setup import Images, read_images, versions
from transfer.learn.summary import over_seeds
from transfer.learn.train import prediction_rows
from transfer.plain import to_dict

log = logging.getLogger(__name__)

VIEWS = 4  # augmented views of each image that a trained tail learns from, unless --views says otherwise


@dataclass
class AdaptRun:
    """What `adapt` gives back.

    Parameters
    ----------
    result : dict
        As in result.json.
    models : dict of str to TransferModel
        Of the first seed: ``models[""]`` answers for target images.
    tests : list of (ImageTable, Answers)
        For each seed the target's test images, with their true labels, and the answers on them.
    before : list of ndarray
        For each seed the classes that source_only gave these images, int64.
    """

    result: dict[str, Any]
    models: checkpoint.Models
    tests: list[tuple[ImageTable, Answers]]
    before: list[np.ndarray]


def read(config: ShiftConfig, cache: TrunkCache) -> Images:
    """Return the images that `config` names, of all domains."""
    return read_images(
        DataConfig(data=config.data, data_root=config.data_root, on_bad_image=config.on_bad_image), cache.store
    )


def adapt(config: AdaptConfig, *, images: Images | None = None, cache: TrunkCache | None = None) -> AdaptRun:
    """Adapt as `config` says and write its run folder, if it names one.

    Parameters
    ----------
    images : Images, optional
        Already read with :func:`read`.
    cache : TrunkCache, optional
        Shared between runs, so that what their frozen trunks have in common is computed once.

    Raises
    ------
    TransferError
        Bad input.
    """
    config = prepared(config)
    out, seeds = config.run.out, config.run.seeds or (config.run.seed,)
    cache = cache or TrunkCache(config.cache)
    images = images or read(config.shift, cache)
    how: Any = {"overwrite": config.run.overwrite, "later": True, "tensorboard": config.run.tensorboard}
    folder = RunFolder(out, to_dict(config), **how) if out else None
    if len(seeds) == 1:
        return _adapt_once(replace(config, run=replace(config.run, seed=seeds[0])), images, cache, folder)
    runs = []
    for seed in seeds:
        log.info("seed %d", seed)
        inner = out / f"seed{seed}" if out else None
        shown = config.run.report and seed == seeds[0]
        one = replace(config, run=replace(config.run, seed=seed, seeds=(), out=inner, report=shown))
        runs.append(_adapt_once(one, images, cache, folder.inner(f"seed{seed}", to_dict(one)) if folder else None))
    results = [run.result for run in runs]
    tests, before = [run.tests[0] for run in runs], [run.before[0] for run in runs]
    merged = over_seeds(seeds, results, ("target", "source_only", "shift")) | {"config": to_dict(config)}
    merged["shift"] |= understand.flagged([result["shift"] for result in results])
    merged |= understand.gains(tests, before)
    chosen = [result["selection"] for result in results]
    oracle = [some["oracle_accuracy"] for some in chosen]
    merged["selection"] = {
        "rule": config.method.rule,
        "chosen": [some["chosen"] for some in chosen],
        "oracle_accuracy": fmean(oracle) if None not in oracle else None,
    }
    if folder:
        folder.gather([folder.path / f"seed{seed}" for seed in seeds])
        folder.result(merged)
    return AdaptRun(merged, runs[0].models, tests, before)


def prepared(config: AdaptConfig) -> AdaptConfig:
    """Return `config` with what follows from it filled in.

    Raises
    ------
    TransferError
        A method, rule or policy that there is not.
    """
    methods = [find(name) for name in config.method.method]
    if config.method.weight and not any(method.build for method in methods):
        raise TransferError(f"--weight: {', '.join(config.method.method)} minimises no loss that it could weigh")
    rules.find(config.method.rule)
    if "target_only" in config.method.method and not (config.shift.target_labels or config.shift.protocol == "office"):
        raise TransferError("target_only learns from target labels, and there are none: say --target-labels 3")
    policy = FreezePolicy.parse(config.method.policy)
    if policy.kind in ("lp_ft", "gradual", "scratch"):
        raise TransferError(f"--policy {policy}: to adapt, one phase, such as linear_probe, partial:2 or full")
    if policy.kind == "head2toe":
        raise TransferError(
            f"--policy {policy}: features chosen by the labels of one domain need not matter in the other; to adapt "
            "those of an earlier stage say truncate:1"
        )
    if policy.kind == "linear_probe" and "adabn" in config.method.method:
        raise TransferError(NO_NORMS)
    if policy.kind == "linear_probe" or config.steps.augment == "none" or config.cache.views:
        return config
    return replace(config, cache=replace(config.cache, views=VIEWS))


def _pair(shift: ShiftConfig, images: Images, seed: int) -> tuple[Pair, Truth]:
    return pair(
        images.table,
        images.inspection,
        sources=shift.source,
        target=shift.target,
        protocol=shift.protocol,
        target_labels=shift.target_labels,
        val=shift.val,
        test=shift.test,
        seed=seed,
    )


def _adapt_once(config: AdaptConfig, images: Images, cache: TrunkCache, folder: RunFolder | None) -> AdaptRun:
    began, trunk_before, seed = time.perf_counter(), cache.seconds, config.run.seed
    these, truth = _pair(config.shift, images, seed)
    within, between = rules.find(config.method.rule)
    hold_out = within.validation or between.validation
    if hold_out and not len(these.val):
        raise TransferError(f"--rule {config.method.rule} judges by held-out source images: say --val 0.1, or another")
    stage, plan = set_up(config, these, images, cache, seed, hold_out=hold_out)
    phase = plan.phases[-1]
    phases = (phase, moving(phase)) if "adabn" in config.method.method else (phase,)
    before = freeze.frozen_tensors(stage.model.backbone, phases)

    def tell(line: dict[str, Any]) -> None:
        log.info("%s", candidate_line(line))
        if folder:
            folder.metric(line)

    def tried(name: str, stage: Stage, tell: OnLine) -> Choice:
        choice = Choice(stage, within.score, tell)
        weights, bottleneck = config.method.weight, config.method.bottleneck
        choice.notes += fit(name, stage, phase, config.steps, choice, weights=weights, bottleneck=bottleneck, seed=seed)
        return choice

    untouched = stage.as_features()
    told: list[dict[str, Any]] = []
    tries, reference = {}, tried("source_only", untouched, told.append)
    for name in config.method.method:
        same = name == "source_only" and stage.frozen
        tries[name] = reference if same else tried(name, stage, tell)
        for line in told if same else ():
            tell(line)
    sound = {name: some for name, some in tries.items() if some.best} or tries  # a method that diverged ends no run
    scores = {name: between.score(some.taken.evidence) for name, some in sound.items()}
    choices = list(sound.values())
    choice = choices[rules.choose(list(scores.values()))]
    stage.restart()
    stage.model.backbone.load_state_dict(choice.backbone, strict=False)
    moved = freeze.changed(before, freeze.frozen_tensors(stage.model.backbone, phases))
    stage.model.heads = choice.taken.heads
    answers = answer(stage.model, stage.feed, these.test, targets(these.table, stage.model))[0]
    found, remarks = understand.shift(untouched, choice.taken.evidence, seed=seed)
    # Everything is chosen and answered: only now does the truth come out.
    test = _with_truth(these, truth)
    labelled = bool((test.object >= 0).any())
    oracle = {name: _accuracy(test, said) for some in choices for name, said in some.answers.items() if labelled}
    best = max(oracle, key=lambda name: oracle[name]) if oracle else None
    said = [note for some in tries.values() if some is choice or not some.best for note in some.notes]
    trunk, total = cache.seconds - trunk_before, time.perf_counter() - began
    trained = sum(p.numel() for p in stage.model.heads.parameters()) + plan.trained_parameters
    result = {
        "command": "adapt",
        "config": to_dict(config),
        "versions": versions(),
        "seconds": {"total": round(total, 3), "trunk": round(trunk, 3), "train": round(total - trunk, 3)},
        "backbone": {
            "name": stage.model.backbone.name,
            "weights": stage.model.backbone.weights,
            "width": stage.model.backbone.width,
        },
        "policy": {
            "name": str(plan.policy),
            "trained_parameters": trained,
            "frozen_parameters": plan.frozen_parameters,
            "frozen_unchanged": not moved,
            "moved": list(moved),
            "heads_parameters": trained - plan.trained_parameters,
            "phases": to_dict(plan.phases),
        },
        "images": {
            "source": len(these.train),
            "val": len(these.val),
            "target": len(these.unlabelled),
            "target_labelled": len(these.labelled),
            "test": len(these.test),
        },
        "target": {"object": _report(test, answers["object"].argmax(1))},
        "source_only": {"object": _report(test, reference.answers["source_only"])},
        **understand.gains([(test, answers)], [reference.answers["source_only"]]),
        "shift": found,
        "selection": {
            "rule": config.method.rule,
            "chosen": choice.taken.name,
            "methods": scores,
            "candidates": {name: score for some in choices for name, score in some.scores.items()},
            "oracle_chosen": best,
            "oracle_accuracy": oracle[best] if best else None,
        },
        "notes": [*images.table.notes, *these.notes, *truth.notes(these.test), *said, *remarks],
    }
    models = {"": stage.model}
    if folder:
        hidden = tuple(layer.out_features for layer in _linear(stage.model.heads)[:-1])
        checkpoint.save(folder.path / "model.safetensors", models, HeadConfig(hidden=hidden))
        folder.predictions(prediction_rows(test, answers))
        sides = (", ".join(these.sources), these.target)
        states = {"before": reference.taken.evidence, f"after ({choice.taken.name})": choice.taken.evidence}
        if config.run.report and len(test):
            seen_as = [understand.state(title, evidence) for title, evidence in states.items()]
            folder.exhibits(exhibits(test, answers, stage.model, seen_as, sides, config.steps.workers))
        folder.result(result)
    if folder and config.map:
        feature_map(folder.path / "map.png", states, classes=these.table.objects, domains=sides, seed=seed)
    return AdaptRun(result, models, [(test, answers)], [reference.answers["source_only"]])


def _with_truth(these: Pair, truth: Truth) -> ImageTable:
    """Return the table of the test rows with their true objects."""
    table = these.table.take(these.test)
    true = Target(truth.answers(these.test), "softmax", truth.classes)
    return replace(table, targets={"object": true, "domain": table.targets["domain"]})


def _report(test: ImageTable, said: np.ndarray) -> dict[str, Any]:
    return metrics.classification(test.object, said, test.objects)


def _accuracy(test: ImageTable, said: np.ndarray) -> float:
    known = test.object >= 0
    return float((said == test.object)[known].mean())


def _linear(heads: Heads) -> list[nn.Linear]:
    return [layer for layer in heads.modules() if isinstance(layer, nn.Linear)]
