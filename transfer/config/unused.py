"""Which options a run cannot use, and why. Imports no torch.

An option counts as given where it differs from its default.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from transfer.config.adapt import AdaptConfig
from transfer.config.serialise import iter_settings
from transfer.config.shared import CacheConfig, RunConfig
from transfer.config.train import TrainConfig

C = TypeVar("C")
Rule = tuple[bool, str, str]
"""Whether it holds, the reason, and the options without effect where it holds, separated by spaces."""

SOLVED = "the heads are solved by L-BFGS, not trained"
FROZEN = "the whole backbone stays frozen"
STEPS = "lr epochs optimizer batch_size weight_decay momentum clip accumulate schedule warmup cycles average ema_decay"
STEPS += " minutes patience interference precision"
"""Options that only matter where something is trained in steps."""


@dataclass(frozen=True)
class RunFacts:
    """What decides which options of `transfer train` have an effect."""

    phases: tuple[str, ...]
    solved: tuple[bool, ...]  # of each phase, whether its heads are solved
    solvable: bool  # whether --probe solved would solve a phase
    trained_stages: int  # most stages that a phase trains
    batch_norms: int  # norms with running statistics in the trained stages
    frozen_below: bool  # whether a phase trains stages above frozen ones
    from_scratch: bool
    heads: int
    smoothed: bool  # whether a head's loss has label smoothing
    labels: bool  # whether a head has several labels an image
    has_momentum: bool  # of the optimizer
    dropout: float  # rate of the heads
    val: int  # images
    test: int
    given_splits: tuple[str, ...] = ()  # that come with the set: "test", "val"
    unlabelled: int = 0  # training images without a label
    pretrained: bool = True


@dataclass(frozen=True)
class AdaptationFacts:
    """What decides which options of `transfer adapt` have an effect."""

    trained_stages: int
    steps: bool  # whether a method takes steps of an optimizer
    candidates: bool  # whether --rule has several candidates to choose from
    estimates: bool = True  # whether a method's accuracy on the target is estimated


def find_unused_options(
    config: TrainConfig, facts: RunFacts, default: TrainConfig | None = None, searched: Collection[str] = ()
) -> dict[str, str]:
    """Return the given options that a run cannot use, in the order of the config: option -> reason.

    `default` is the config without any option (by default that of `transfer train`); options that are `searched` count
    as given whatever their value.
    """
    rules = [*_iter_data_rules(config, facts), *_iter_head_rules(config, facts), *_iter_step_rules(config, facts)]
    return _collect(config, default or TrainConfig(), [*rules, *_iter_shared_rules(config.run, config.cache)], searched)


def find_unused_adaptation_options(config: AdaptConfig, facts: AdaptationFacts) -> dict[str, str]:
    """Return the given options that an adaptation cannot use: option -> reason."""
    frozen, one = facts.trained_stages == 0, facts.trained_stages == 1
    methods = ", ".join(config.method.method)
    rules = [
        (not facts.steps, f"{methods} takes no optimizer steps here", "epochs steps lr batch_size weight_decay"),
        (not facts.steps, f"{methods} takes no optimizer steps here", "momentum clip bottleneck"),
        (frozen, FROZEN, "augment backbone_lr layer_decay views cut_precision"),
        (one, "a single stage is trained", "layer_decay"),
        (config.steps.augment == "none", "no image is augmented with --augment none", "views"),
        (not facts.candidates, "there is a single candidate", "rule"),
        (not facts.estimates, f"the accuracy of {methods} on the target is not estimated", "calibrate"),
        (config.shift.protocol != "inductive", f"--protocol {config.shift.protocol} holds no target out", "test"),
        *_iter_data_root_rules(config.shift.data),
    ]
    return _collect(config, AdaptConfig(), [*rules, *_iter_shared_rules(config.run, config.cache)])


def format_unused_options(unused: Mapping[str, str]) -> list[str]:
    """Return a sentence for each reason.

    Examples
    --------
    >>> unused = {"lr": "they are solved", "ema_decay": "nothing is averaged", "clip": "they are solved"}
    >>> format_unused_options(unused)
    ['--lr, --clip: no effect, because they are solved', '--ema-decay: no effect, because nothing is averaged']
    """
    options: dict[str, list[str]] = {}
    for name, reason in unused.items():
        options.setdefault(reason, []).append(f"--{name.replace('_', '-')}")
    return [f"{', '.join(names)}: no effect, because {reason}" for reason, names in options.items()]


def reset_options(config: C, names: Mapping[str, Any], default: C | None = None) -> C:
    """Return `config` with the options `names` as they are in `default`.

    Examples
    --------
    >>> from transfer.config.train import LearnConfig
    >>> reset_options(TrainConfig(learn=LearnConfig(lr=1.0, epochs=5)), {"lr": ""}).learn
    LearnConfig(lr=0.003, epochs=5, ...)
    """
    default = type(config)() if default is None else default
    changed: dict[str, Any] = {}
    for field in fields(config):  # type: ignore[arg-type]
        value, usual = getattr(config, field.name), getattr(default, field.name)
        if is_dataclass(value):
            changed[field.name] = reset_options(value, names, usual)
        elif field.name in names:
            changed[field.name] = usual
    return replace(config, **changed)  # type: ignore[type-var]


def _collect(config: Any, default: Any, rules: list[Rule], searched: Collection[str] = ()) -> dict[str, str]:
    reasons: dict[str, str] = {}
    for holds, reason, options in rules:
        for name in options.split() if holds else ():
            reasons.setdefault(name, reason)
    given = [name for name, value, usual in iter_settings(config, default) if value != usual or name in searched]
    return {name: reasons[name] for name in given if name in reasons}


def _iter_data_rules(config: TrainConfig, facts: RunFacts) -> Iterator[Rule]:
    yield from _iter_data_root_rules(config.data.data)
    for name in facts.given_splits:
        yield True, f"the {name} images that come with the set are used", name
    yield len(facts.given_splits) == 2, "the split that comes with the set is used", "split_seed"
    yield not facts.test, "there are no test images", "test_crops test_sizes"
    yield not facts.val, "there are no validation images", "patience refit calibrate"
    yield facts.from_scratch, "policy scratch starts from random weights anyway", "random_init"
    random = facts.from_scratch or not facts.pretrained
    yield random, "random weights have no pretrained features to propagate labels on", "unlabelled"
    yield not facts.unlabelled, "every training image has a label", "unlabelled"


def _iter_head_rules(config: TrainConfig, facts: RunFacts) -> Iterator[Rule]:
    heads, learn, every = config.heads, config.learn, all(facts.solved)
    yield facts.heads == 1, "there is a single head", "heads loss_weights"
    yield not heads.hidden, "linear heads have no hidden layer", "activation"
    yield every, SOLVED, "dropout dropout_kind head_init"
    yield every and heads.heads != "joint", "each head is solved alone", "loss_weights"
    yield every and learn.balance == "sampling", f"{SOLVED}; --balance loss weights their images", "balance"
    yield facts.solved[0], f"the heads start as phase {facts.phases[0]} solves them", "head_init"
    yield not facts.dropout, "the heads have no dropout", "dropout_kind"
    yield not facts.solvable, "no phase has linear heads on features of a frozen backbone", "probe"
    yield learn.loss == "hinge", "the hinge loss has no label smoothing", "label_smoothing"
    yield learn.loss == "asymmetric" and not facts.labels, "no head has several labels an image", "loss"
    yield not facts.smoothed, "no head has a loss with label smoothing", "label_smoothing"


def _iter_step_rules(config: TrainConfig, facts: RunFacts) -> Iterator[Rule]:
    learn = config.learn
    yield all(facts.solved), SOLVED, STEPS
    yield facts.trained_stages == 0, FROZEN, "backbone_lr layer_decay statistics interference"
    yield facts.from_scratch, "policy scratch trains all stages at --lr", "backbone_lr layer_decay"
    lbfgs = "--optimizer lbfgs chooses its steps by line search"
    yield learn.optimizer == "lbfgs", lbfgs, "lr schedule warmup clip accumulate backbone_lr layer_decay"
    yield facts.trained_stages == 1, "a single stage is trained", "layer_decay"
    yield not facts.batch_norms, "the trained stages have no norm with running statistics", "statistics"
    yield not facts.has_momentum, f"--optimizer {learn.optimizer} takes no momentum", "momentum"
    yield learn.average != "ema", "there is no moving average without --average ema", "ema_decay"
    alone = "the policy has no phase before fine-tuning, as lp_ft has"
    yield learn.average == "wise_ft" and len(facts.phases) == 1, alone, "average"
    yield learn.cycles > 1, "a schedule of several cycles is never stopped early", "patience minutes"
    yield facts.heads == 1, "there is a single head", "interference"
    yield config.heads.heads == "separate", "each network has a single head", "interference loss_weights"
    whole = "no phase has frozen stages below trained ones"
    yield not facts.frozen_below, whole, "cut_precision"


def _iter_shared_rules(run: RunConfig, cache: CacheConfig) -> Iterator[Rule]:
    yield not cache.cache, "there is no disk cache with --no-cache", "cache_gb"
    yield not run.out, "there is no run folder", "checkpoint_minutes report overwrite"
    yield bool(run.seeds), "--seeds names the seeds", "seed"


def _iter_data_root_rules(data: str) -> Iterator[Rule]:
    yield data == "digits", "digits are drawn, not read", "data_root"
    found = data != "office31" and Path(data).expanduser().exists()
    yield found, f"{data} is found without it", "data_root"
