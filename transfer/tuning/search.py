"""`transfer search`: many short trials on shared features; validation accuracy chooses the best settings."""

import logging
import time
from dataclasses import replace
from itertools import product
from statistics import fmean
from typing import Any

from tqdm.auto import tqdm

from transfer.config.commands import SearchConfig
from transfer.config.serialise import to_dict
from transfer.config.train import TrainConfig
from transfer.config.unused import find_unused_options, format_unused_options
from transfer.errors import TransferError
from transfer.feature_cache import TrunkCache
from transfer.freeze import FreezePolicy
from transfer.runs.facts import list_left_out
from transfer.runs.folder import RunFolder
from transfer.runtime.device import get_versions
from transfer.runtime.time_limit import FIT_INTO_LIMIT, TimeLimit
from transfer.training import optimizers
from transfer.training.setup import Images, read_images
from transfer.training.train import train
from transfer.tuning.samplers import Proposals, Record, TrialStudy, rank_trials
from transfer.tuning.space import Options, Range, Settings, Space, apply_settings, parse_space, settings_at_boundary
from transfer.tuning.trial import Halving, TrialRunner

SELECTION_RULE = (
    "highest mean accuracy over the heads on the validation images (optimistic, as it is the maximum over all trials); "
    "the test images are not used"
)
# Settings whose value decides which others have an effect.
DECISIVE_SETTINGS = ("policy", "optimizer", "heads", "hidden", "dropout", "augment", "loss", "schedule", "average")
TRIALS_SHARE = 0.75  # of the time, if the best settings are trained with at the end
ALWAYS_LOGGED = ("lr", "weight_decay")  # in every trial's log line; other settings only if they are searched

log = logging.getLogger(__name__)


def search(config: SearchConfig) -> dict[str, Any]:
    """Try settings one after the other and choose by validation accuracy; with ``final``, train and test the best once.

    Returns
    -------
    dict
        As in result.json: ``trials``, ``best`` (one of them), ``recommended`` (the config of a training run with its
        settings), ``solved_probe`` (what :meth:`TrialRunner.run_solved_probe` returns), ``selection`` (the rule),
        ``importance`` of each setting, ``space``, ``notes``; ``final``, the result of
        :func:`transfer.training.train.train` or None, and ``test``, its
        test metrics; ``config``, ``versions``, ``seconds``.

    Raises
    ------
    TransferError
        Bad input; a run folder that cannot be used; no validation images.
    """
    started, given, limit = time.perf_counter(), to_dict(config), TimeLimit.after(config.train.learn.minutes)
    config = replace(config, train=replace(config.train, learn=replace(config.train.learn, minutes=None)))
    space = parse_space(config.space)
    _check(config, space)
    proposals = Proposals(space, config)
    out, run = config.train.run.out, config.train.run
    folder = RunFolder(out, given, overwrite=run.overwrite, resume=run.resume) if out else None
    records: list[Record] = folder.read_metrics(("trial", "stage", "settings", "rungs", "val_acc")) if folder else []
    cache = TrunkCache(config.train.cache)
    images = read_images(config.train.data, cache.disk_cache)
    runner = TrialRunner(config.train, images, cache)
    if not len(runner.parts.val):
        raise TransferError("a search chooses by validation accuracy, and there are no validation images: set --val")
    runner.log_network(config.train, _describe(space["policy"]) if "policy" in space else config.train.policy.policy)
    for sentence in format_unused_options(_find_unused_in_every_trial(config.train, space, runner)):
        log.info("%s", sentence)
    halving = Halving(config.train.learn.epochs, config.halving)
    trials = limit.share(TRIALS_SHARE) if config.final else limit
    with tqdm(total=proposals.total, initial=len(records), desc="trials", unit="trial", disable=None) as bar:
        while len(records) < proposals.total and not _is_time_up(trials, records):
            stage, settings = proposals.next(records)
            trial_config = apply_settings(config.train, settings)
            keep_training, scores = halving.watch(records)
            trial = runner.run_trial(trial_config, keep_training)
            record = {"trial": len(records), "stage": stage, "settings": settings} | trial
            record["rungs"] = scores
            records.append(record)
            if folder:
                folder.append_metrics(record)
            log.info("%s", trial_line(trial_config, record, proposals.total))
            bar.update()
    best = rank_trials(records)[0]
    solved_probe = runner.run_solved_probe(config.train)
    final = _final(config, best, images, cache, limit) if config.final else None
    result = {
        "command": "search",
        "config": given,
        "versions": get_versions(),
        "images": {name: len(getattr(runner.parts, name)) for name in ("train", "val", "test")},
        "space": {name: _describe(parameter) for name, parameter in space.items()},
        "trials": records,
        "best": best,
        "recommended": to_dict(runner.recommend(apply_settings(config.train, _round(best["settings"])))),
        "solved_probe": solved_probe,
        "selection": {"rule": SELECTION_RULE, "trials": len(records)},
        "importance": TrialStudy(space).importance(records),
        "notes": [
            *_boundary_notes(space, best),
            *_note_time(len(records), proposals.total),
            *images.table.notes,
            *runner.parts.notes,
        ],
        "final": final,
        "test": final["test"] if final else {},
        "seconds": {"total": round(time.perf_counter() - started, 3), "trunk": round(cache.seconds, 3)},
    }
    if folder:
        folder.write_left_out(list_left_out(images.table))
        folder.write_result(result)
    return result


def _is_time_up(limit: TimeLimit, records: list[Record]) -> bool:
    """Return whether no further trial fits; the first one always does."""
    return bool(records) and not limit.count_epochs(1, fmean(record["seconds"] for record in records))


def _final(config: SearchConfig, best: Record, images: Images, cache: TrunkCache, limit: TimeLimit) -> dict[str, Any]:
    """Train and test once with the `best` settings, on the split of the search."""
    out = config.train.run.out
    log.info("training with the best settings, those of trial %d", best["trial"])
    run = replace(config.train.run, out=out / "final" if out else None, overwrite=not config.train.run.resume)
    chosen = replace(apply_settings(config.train, best["settings"]), run=run)
    return train(chosen, images=images, cache=cache, limit=limit).result


def _check(config: SearchConfig, space: Space) -> None:
    """Raise if the space cannot be searched, before anything is computed."""
    if config.train.run.seeds:
        raise TransferError(
            "--seeds: a search takes a single --seed, because test images of one seed are validation images of another"
        )
    configs = [
        apply_settings(config.train, {name: value})
        for name, parameter in space.items()
        for value in parameter.levels(2)
    ]
    policies = [FreezePolicy.parse(extreme.policy.policy) for extreme in configs]
    for extreme in configs:
        optimizers.check_optimizer(extreme.learn.optimizer)
    hidden, solved = any(extreme.heads.hidden for extreme in configs), config.train.learn.probe == "solved"
    probes = not any(policy.trains_backbone for policy in policies)
    every = [policy for policy in policies if policy.all_stages]
    if every and (hidden or not solved):
        raise TransferError(
            f"policy {every[0]} is always solved, never trained: set --probe solved, and do not search hidden sizes"
        )
    if solved and probes and not hidden and len(set(policies)) == 1:
        raise TransferError(
            "--probe solved has no learning rate and chooses its own regularisation: there is nothing to search; "
            "set --probe trained"
        )


def _find_unused_in_every_trial(config: TrainConfig, space: Space, runner: TrialRunner) -> dict[str, str]:
    """Return the given options that no trial can use: option -> reason.

    Raises
    ------
    TransferError
        One of them is searched.
    """
    names = [name for name in space if name in DECISIVE_SETTINGS]
    extremes = {name: parameter.levels(2)[-1] for name, parameter in space.items()}
    found: dict[str, str] | None = None
    for values in product(*(space[name].levels(2) for name in names)):
        trial = apply_settings(config, extremes | dict(zip(names, values, strict=True)))
        unused = find_unused_options(trial, runner.collect_facts(trial), SearchConfig().train, space)
        found = {k: v for k, v in (unused if found is None else found).items() if k in unused}
    assert found is not None
    if name := next((name for name in space if name in found), ""):
        raise TransferError(f"--space {name}: there is nothing to search, because {found[name]}")
    return found


def trial_line(config: TrainConfig, record: Record, total: int) -> str:
    """Return a trial's log line: validation accuracy, rate and weight decay, other settings, number and total.

    Examples
    --------
    >>> record = {"val_acc": 0.527, "settings": {"lr": 5.349517e-04, "batch_size": 64}, "trial": 0}
    >>> trial_line(apply_settings(TrainConfig(), record["settings"]), record, 100)
    'val_acc: 0.527000, lr: 5.349517e-04, reg: 1.000000e-02, batch_size: 64, (0 / 100)'
    """
    learn = config.learn
    words = [f"val_acc: {record['val_acc']:.6f}", f"lr: {learn.lr:.6e}", f"reg: {learn.weight_decay:.6e}"]
    for name, value in record["settings"].items():
        if name not in ALWAYS_LOGGED:
            words.append(f"{name}: {value:.6e}" if isinstance(value, float) else f"{name}: {value}")
    return ", ".join([*words, f"({record['trial']} / {total})"])


def _describe(parameter: Range | Options) -> str:
    if isinstance(parameter, Options):
        return ",".join(map(str, parameter.options))
    return f"{parameter.low:g}:{parameter.high:g}"


def _note_time(tried: int, planned: int) -> list[str]:
    return [f"{tried} of {planned} trials {FIT_INTO_LIMIT}"] if tried < planned else []


def _round(settings: Settings) -> Settings:
    """Return `settings` as one would type them."""
    return {name: float(f"{value:.4g}") if isinstance(value, float) else value for name, value in settings.items()}


def _boundary_notes(space: Space, best: Record) -> list[str]:
    return [
        f"the best {name}, {best['settings'][name]:.3g}, lies at the boundary of {_describe(space[name])}: widen the "
        f"range with --space {name}=LOW:HIGH"
        for name in settings_at_boundary(space, best["settings"])
    ]
