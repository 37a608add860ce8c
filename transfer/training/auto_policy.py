"""``--policy auto``: what advice says of the images that may be learnt from, before anything is trained."""

import logging
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from transfer import freeze
from transfer.advice import costs, rule
from transfer.advice.evidence import Evidence, gather, sample
from transfer.advice.network import Network
from transfer.advice.observe import observe
from transfer.advice.requirements import Asked
from transfer.advice.rule import Advice
from transfer.advice.transferability.size import set_size
from transfer.config.serialise import to_dict
from transfer.config.train import LearnConfig, TrainConfig
from transfer.data.splits import Splits
from transfer.feature_cache import TrunkCache
from transfer.heads.heads import HeadSpec
from transfer.probes.choose import can_solve_heads
from transfer.runs.checkpoint import build_heads
from transfer.runtime import distributed
from transfer.training.penalties import build
from transfer.training.setup import Images, head_specs, new_backbone, pick_device

AUTO = "auto"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PolicyAdvice:
    """Advice on one backbone, and what it stands on.

    Parameters
    ----------
    record : dict
        All of it as plain values, for advice.json and result.json.
    """

    advice: Advice
    evidence: Evidence
    record: dict[str, Any]


def advise_policy(config: TrainConfig, images: Images, parts: Splits, cache: TrunkCache) -> PolicyAdvice:
    """Return advice for a run of `config` on the images of `parts` that it may learn from.

    Labels of train and val count, those of test and of what ``--shots`` leaves out do not; images of the latter are
    looked at, as those without any label are, where few have labels.
    """
    began, trunk_before = time.perf_counter(), cache.seconds
    table, inspection, seed = images.table, images.inspection, config.run.seed
    learn = np.sort(np.concatenate([parts.train, parts.val]))
    others = np.setdiff1d(np.arange(len(table)), np.concatenate([learn[table.object[learn] >= 0], parts.test]))
    labelled, more = sample(table, learn, others, seed)
    rows = np.concatenate([labelled, more])
    some, found = table.take(rows), inspection.take(rows)
    backbone = new_backbone(config.backbone, seed, classifier="any").to(pick_device(config.learn.device))
    measured = costs.Costs(**distributed.same(to_dict(costs.measure(backbone, some.paths))))
    seen = observe(backbone, some, found.sha256, cache, config.learn.workers)
    if backbone.weights == "random":  # was given nothing before, and its classifier says nothing
        seen = replace(seen, norms={}, probabilities=None)
    size = set_size(table.take(learn), inspection.take(learn))
    evidence = gather(
        seen, some, found, len(labelled), size, seed, near_together=config.data.keep_near_duplicates_together
    )
    heads = build_heads([HeadSpec("object", classes=table.objects)], backbone.width, config.heads)
    solved, views = can_solve_heads(heads, config.learn, config.cache.views), config.cache.views
    network = Network.of(backbone)
    asked = Asked(
        looks=len(learn) * (1 + views) + len(parts.test),
        total=len(table),
        tested=len(parts.test),
        solved=solved,
        learns=tuple(build.options_without_effect(heads, config.learn, solved)),
        balanced=config.learn.balance != "none",
        networks=len(head_specs(table, parts, config.heads)[0]),
        fresh=config.learn.epochs if config.learn.augment != "none" and not views else 0,
    )
    advice = rule.advise(evidence, measured, network, asked)
    record = {
        "backbone": {"name": backbone.name, "weights": backbone.weights, "parameters": sum(network.parameters)},
        "advice": _advice(advice) | {"how": how(config, advice, [stage.name for stage in backbone.stages])},
        "similarity": to_dict(evidence.similarity),
        "size": to_dict(evidence.size),
        "judged": len(evidence.labels),
        "commonest": evidence.commonest,
        "left": evidence.left,
        "probes": {
            policy: {"accuracy": p.accuracy, "interval": list(p.interval), "loss": p.loss, "strength": p.l2}
            for policy, p in evidence.probes.items()
        },
        "neighbours": dict(evidence.neighbours),
        "transferability": to_dict(evidence.transferability),
        "noise": {
            "count": evidence.noise.count,
            "share": evidence.noise.share,
            "suspects": [
                {"path": str(some.paths[row]), "label": table.objects[label], "called": table.objects[called]}
                for row, called in zip(evidence.noise.suspects, evidence.noise.called, strict=True)
                for label in [int(some.object[row])]
            ],
        },
        "costs": to_dict(measured),
        "seconds": {
            "total": round(time.perf_counter() - began, 3),
            "trunk": round(cache.seconds - trunk_before, 3),
        },
    }
    return PolicyAdvice(advice, evidence, record)


def _advice(advice: Advice) -> dict[str, Any]:
    def plain(candidate: rule.Candidate) -> dict[str, Any]:
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


def how(config: TrainConfig, advice: Advice, stages: list[str]) -> dict[str, Any]:
    """Return what following `advice` means for a backbone of `stages`, lowest first: what learns, how fast, on what."""
    policy = freeze.FreezePolicy.parse(advice.best.policy)
    left = stages[: len(stages) - policy.dropped]
    learning = left[len(left) - (policy.stages or len(left)) :] if advice.best.epochs else []
    every = policy.every_stage
    return {
        "frozen": left[: len(left) - len(learning)],
        "learning": learning,
        "dropped": stages[len(left) :],
        "features": left if every else left[-1:],
        "heads": {"kind": config.heads.heads, "hidden": list(config.heads.hidden)},
        "lr": config.learn.lr,
        "backbone_lr": config.policy.backbone_lr * config.learn.lr,
        "augment": config.learn.augment,
        "epochs": advice.best.epochs,
    }


def apply_advice(config: TrainConfig, advice: Advice) -> TrainConfig:
    """Return `config` with the policy and settings that were advised; what it sets otherwise than by default stays."""
    settings = distributed.same(dict(advice.settings))  # floats differ between processes, what is done must not
    said = (advice.case, advice.best.policy, advice.best.accuracy, *advice.best.interval)
    log.info("advised, as the set is %s: %s, %.3f (%.3f to %.3f) expected", *said)
    policy = str(settings.pop("policy"))
    own = {name: value for name in settings if (value := getattr(config.learn, name)) != getattr(LearnConfig, name)}
    if own:
        log.info("kept as asked: %s", ", ".join(f"{name} {value}" for name, value in own.items()))
    learn = replace(config.learn, **settings | own)  # type: ignore[arg-type]
    return replace(config, policy=replace(config.policy, policy=policy), learn=learn)
