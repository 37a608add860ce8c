"""``--policy auto``: advice for a run from its training images, before anything is trained."""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from transfer import freeze
from transfer.advice.costs import TrainingCosts, measure_costs
from transfer.advice.evidence import AdviceEvidence, gather_evidence, sample_rows
from transfer.advice.observe import observe
from transfer.advice.requirements import NetworkLayout, RatedPolicy, RunRequirements
from transfer.advice.rule import Advice, derive_advice
from transfer.advice.transferability.size import measure_set_size
from transfer.backbones.backbone import Backbone
from transfer.backbones.weight_paths import BUNDLE_PRETRAINING
from transfer.config.serialise import to_dict
from transfer.config.train import BackboneConfig, LearnConfig, TrainConfig
from transfer.data.label_sets.refusals import needs_objects
from transfer.data.splits import Splits
from transfer.data.table import ImageTable
from transfer.feature_cache import TrunkCache
from transfer.heads import HeadSpec
from transfer.heads.table_heads import head_specs
from transfer.probes.choose import can_solve_heads
from transfer.runs.checkpoint import build_heads
from transfer.runs.facts import describe_network
from transfer.runtime import distributed
from transfer.runtime.device import pick_device
from transfer.training.penalties import build
from transfer.training.setup import Images, new_backbone

AUTO = "auto"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PolicyAdvice:
    """Advice on one backbone, its evidence, and both as plain values, for advice.json and result.json."""

    advice: Advice
    evidence: AdviceEvidence
    record: dict[str, Any]
    rows: np.ndarray  # of the table, whose labels were cross-validated


def advise_policy(config: TrainConfig, images: Images, parts: Splits, cache: TrunkCache) -> PolicyAdvice:
    """Return advice for a run of `config` on the training and validation images of `parts`.

    Labels of train and val are used; those of test and of images that ``--shots`` leaves out are not. If few images are
    labelled, similarity is measured on unlabelled and left-out images as well.
    """
    start, trunk_before = time.perf_counter(), cache.seconds
    table, inspection, seed = images.table, images.inspection, config.run.seed
    if not table.has_objects:
        raise needs_objects(table, "advice on a policy")
    learn = np.sort(np.concatenate([parts.train, parts.val]))
    others = np.setdiff1d(np.arange(len(table)), np.concatenate([learn[table.object[learn] >= 0], parts.test]))
    labelled, more = sample_rows(table, learn, others, seed)
    rows = np.concatenate([labelled, more])
    sample, sample_inspection = table.take(rows), inspection.take(rows)
    levels = images.choose_levels(parts.plain_train)
    backbone = new_backbone(observed_config(config.backbone), seed, classifier="any", levels=levels)
    backbone = backbone.to(pick_device(config.learn.device))
    images.facts.log(describe_network(backbone, "to be advised"))
    measured = TrainingCosts(**distributed.broadcast(to_dict(measure_costs(backbone, sample.paths))))
    observed = observe(backbone, sample, sample_inspection.sha256, cache, config.learn.workers)
    if backbone.weights == "random":  # without pretraining, neither norms nor classifier measure similarity
        observed = replace(observed, norms={}, probabilities=None)
    elif backbone.weights == "bundle":
        observed = replace(observed, pretraining=BUNDLE_PRETRAINING)
    size = measure_set_size(table.take(learn), inspection.take(learn))
    together = config.data.keep_near_duplicates_together
    evidence = gather_evidence(observed, sample, sample_inspection, len(labelled), size, seed, near_together=together)
    layout = NetworkLayout.from_backbone(backbone)
    advice = derive_advice(evidence, measured, layout, _find_requirements(config, table, parts, backbone))
    stages = [stage.name for stage in backbone.stages]
    spent = {"total": time.perf_counter() - start, "trunk": cache.seconds - trunk_before}
    record = {
        "backbone": {"name": backbone.name, "weights": backbone.weights, "parameters": sum(layout.parameters)},
        "advice": _to_plain_advice(advice) | {"how": describe_advised_plan(config, advice, stages)},
        **_to_plain_evidence(evidence, sample),
        "costs": to_dict(measured),
        "seconds": {name: round(seconds, 3) for name, seconds in spent.items()},
    }
    return PolicyAdvice(advice, evidence, record, labelled)


def observed_config(config: BackboneConfig) -> BackboneConfig:
    """Return how advice computes features: as `config` says, but in float32, which shows more than int8."""
    return replace(config, engine="auto") if config.engine == "int8" else config


def _find_requirements(config: TrainConfig, table: ImageTable, parts: Splits, backbone: Backbone) -> RunRequirements:
    heads = build_heads([HeadSpec("object", classes=table.objects)], backbone.width, config.heads)
    views = config.cache.views
    solved = can_solve_heads(heads, config.learn, views)
    return RunRequirements(
        frozen_passes=(len(parts.train) + len(parts.val)) * (1 + views) + len(parts.test),
        images=len(table),
        test_images=len(parts.test),
        solves_heads=solved,
        fine_tuning_options=tuple(build.options_without_effect(heads, config.learn, solved)),
        balanced=config.learn.balance != "none",
        networks=len(head_specs(table, parts, config.heads)[0]),
        uncached_epochs=config.learn.epochs if config.learn.augment != "none" and not views else 0,
    )


def _to_plain_advice(advice: Advice) -> dict[str, Any]:
    def plain(candidate: RatedPolicy) -> dict[str, Any]:
        return to_dict(candidate) | {"interval": list(candidate.interval)}

    return {
        "size": advice.size,
        "kind": advice.kind,
        "case": advice.case,
        "best": plain(advice.best),
        "settings": advice.settings,
        "runner_up": plain(advice.runner_up),
        "ranked": [plain(candidate) for candidate in advice.ranked],
        "reasons": list(advice.reasons),
    }


def _to_plain_evidence(evidence: AdviceEvidence, sample: ImageTable) -> dict[str, Any]:
    """Return the evidence of the rows of `sample` as in advice.json."""
    noise, objects = evidence.noise, sample.objects
    return {
        "similarity": to_dict(evidence.similarity),
        "size": to_dict(evidence.size),
        "judged": len(evidence.labels),
        "commonest": evidence.majority_share,
        "left": evidence.remaining_errors,
        "probes": {
            policy: {"accuracy": p.accuracy, "interval": list(p.interval), "loss": p.loss, "strength": p.l2}
            for policy, p in evidence.probes.items()
        },
        "neighbours": dict(evidence.neighbours),
        "transferability": to_dict(evidence.transferability),
        "noise": {
            "count": noise.count,
            "share": noise.share,
            "suspects": [
                {"path": str(sample.paths[row]), "label": objects[int(sample.object[row])], "called": objects[called]}
                for row, called in zip(noise.suspects, noise.called, strict=True)
            ],
        },
    }


def describe_advised_plan(config: TrainConfig, advice: Advice, stages: list[str]) -> dict[str, Any]:
    """Return which of a backbone's `stages`, lowest first, are trained under `advice`, and at which rates."""
    policy = freeze.FreezePolicy.parse(advice.best.policy)
    remaining = stages[: len(stages) - policy.dropped]
    trained = remaining[len(remaining) - (policy.stages or len(remaining)) :] if advice.best.epochs else []
    return {
        "frozen": remaining[: len(remaining) - len(trained)],
        "learning": trained,
        "dropped": stages[len(remaining) :],
        "features": remaining if policy.all_stages else remaining[-1:],
        "heads": {"kind": config.heads.heads, "hidden": list(config.heads.hidden)},
        "lr": config.learn.lr,
        "backbone_lr": config.policy.backbone_lr * config.learn.lr,
        "augment": config.learn.augment,
        "epochs": advice.best.epochs,
    }


def apply_advice(config: TrainConfig, advice: Advice) -> TrainConfig:
    """Return `config` with the advised policy and settings; settings that differ from the defaults are not changed."""
    expected = (advice.case, advice.best.policy, advice.best.accuracy, *advice.best.interval)
    log.info("advice for a set that is %s: policy %s, expected accuracy %.3f (%.3f to %.3f)", *expected)
    fixed = _find_fixed_settings(config, advice.settings)
    if fixed:
        log.info("settings that differ from the defaults stay: %s", ", ".join(f"{k} {v}" for k, v in fixed.items()))
    return make_advised_config(config, advice)


def make_advised_config(config: TrainConfig, advice: Advice) -> TrainConfig:
    """Return what :func:`apply_advice` returns, without a log line."""
    settings = distributed.broadcast(dict(advice.settings))  # expected accuracies may differ between processes
    policy = str(settings.pop("policy"))
    fixed = _find_fixed_settings(config, settings)
    learn = replace(config.learn, **settings | fixed)  # type: ignore[arg-type]
    return replace(config, policy=replace(config.policy, policy=policy), learn=learn)


def _find_fixed_settings(config: TrainConfig, settings: Mapping[str, object]) -> dict[str, Any]:
    """Return those of the advised `settings` that `config` has other values of than the defaults, with these values."""
    names = [name for name in settings if name != "policy"]
    return {name: value for name in names if (value := getattr(config.learn, name)) != getattr(LearnConfig, name)}
