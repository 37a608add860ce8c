"""`transfer search`: many short trials on shared features, judged by validation images, best settings last."""

import logging
import time
from dataclasses import replace
from typing import Any

from tqdm import tqdm

from transfer.config.commands import SearchConfig
from transfer.config.serialise import to_dict
from transfer.config.train import TrainConfig
from transfer.errors import TransferError
from transfer.feature_cache import TrunkCache
from transfer.freeze import FreezePolicy
from transfer.report.figures.search import landscape
from transfer.runs.folder import RunFolder
from transfer.runtime.device import get_versions
from transfer.training import optimizers
from transfer.training.setup import Images, read_images
from transfer.training.train import train
from transfer.tuning.samplers import Proposals, Record, Study, ranked
from transfer.tuning.space import Choice, Range, Space, at_an_end, parse, settle
from transfer.tuning.trial import Bench, Halving

RULE = (
    "highest mean accuracy over the heads on the validation images, as the best of all trials somewhat too high; "
    "the test images had no part in it"
)
IN_LINE = ("lr", "weight_decay")  # of every trial; others only where they are searched

log = logging.getLogger(__name__)


def search(config: SearchConfig) -> dict[str, Any]:
    """Try settings one after the other and choose by validation images; with ``final``, train and test the best once.

    Returns
    -------
    dict
        As in result.json: ``trials``, the ``best`` of them, ``selection`` (by what rule), ``importance`` of each
        setting, ``space``, ``notes``; ``final``, the result of :func:`transfer.training.train.train` or None, and
        ``test``, its part; ``config``, ``versions``, ``seconds``.

    Raises
    ------
    TransferError
        Bad input; a run folder that cannot be used; no validation images.
    """
    began = time.perf_counter()
    space = parse(config.space)
    _check(config, space)
    proposals = Proposals(space, config)
    out, run = config.train.run.out, config.train.run
    folder = RunFolder(out, to_dict(config), overwrite=run.overwrite, resume=run.resume) if out else None
    records: list[Record] = folder.read_metrics(("trial", "stage", "settings", "rungs", "val_acc")) if folder else []
    cache = TrunkCache(config.train.cache)
    images = read_images(config.train.data, cache.store)
    bench = Bench(config.train, images, cache)
    if not len(bench.parts.val):
        raise TransferError("a search needs validation images to judge by, and here are none: see --val")
    halving = Halving(config.train.learn.epochs, config.halving)
    with tqdm(total=proposals.total, initial=len(records), desc="trials", unit="trial", disable=None) as bar:
        while len(records) < proposals.total:
            stage, settings = proposals.next(records)
            one = settle(config.train, settings)
            go_on, scores = halving.watch(records)
            record = {"trial": len(records), "stage": stage, "settings": settings} | bench.trial(one, go_on)
            record["rungs"] = scores
            records.append(record)
            if folder:
                folder.append_metrics(record)
            log.info("%s", trial_line(one, record, proposals.total))
            bar.update()
    best = ranked(records)[0]
    final = _final(config, best, images, cache) if config.final else None
    result = {
        "command": "search",
        "config": to_dict(config),
        "versions": get_versions(),
        "images": {name: len(getattr(bench.parts, name)) for name in ("train", "val", "test")},
        "space": {name: _in_words(parameter) for name, parameter in space.items()},
        "trials": records,
        "best": best,
        "selection": {"rule": RULE, "trials": len(records)},
        "importance": Study(space).importance(records),
        "notes": [*_beyond(space, best), *images.table.notes, *bench.parts.notes],
        "final": final,
        "test": final["test"] if final else {},
        "seconds": {"total": round(time.perf_counter() - began, 3), "trunk": round(cache.seconds, 3)},
    }
    if folder:
        landscape(folder.path / "landscape.png", result)
        folder.write_result(result)
    return result


def _final(config: SearchConfig, best: Record, images: Images, cache: TrunkCache) -> dict[str, Any]:
    """Return the result of an ordinary run with the `best` settings, on the split that the search had."""
    out = config.train.run.out
    log.info("training with the best settings, those of trial %d", best["trial"])
    run = replace(config.train.run, out=out / "final" if out else None, overwrite=not config.train.run.resume)
    return train(replace(settle(config.train, best["settings"]), run=run), images=images, cache=cache).result


def _check(config: SearchConfig, space: Space) -> None:
    """Refuse what could not be searched, before anything is computed."""
    if config.train.run.seeds:
        raise TransferError(
            "--seeds: a search takes one --seed, as another seed's test images are among its validation images"
        )
    ends = [settle(config.train, {name: value}) for name, parameter in space.items() for value in parameter.levels(2)]
    policies = [FreezePolicy.parse(one.policy.policy) for one in ends]
    for one in ends:
        optimizers.check(one.learn.optimizer)
    hidden, solved = any(one.heads.hidden for one in ends), config.train.learn.probe == "solved"
    probes = not any(policy.trains_backbone for policy in policies)
    every = [policy for policy in policies if policy.all_stages]
    if every and (hidden or not solved):
        raise TransferError(
            f"policy {every[0]} is solved, never trained: say --probe solved, and search no hidden sizes"
        )
    if solved and probes and not hidden and len(set(policies)) == 1:
        raise TransferError(
            "--probe solved has no learning rate and finds its own regularisation: there is nothing to search; "
            "say --probe trained"
        )


def trial_line(config: TrainConfig, record: Record, total: int) -> str:
    """Return a trial's line: validation accuracy, rate and weight decay, what else is searched, number and total.

    Examples
    --------
    >>> record = {"val_acc": 0.527, "settings": {"lr": 5.349517e-04, "batch_size": 64}, "trial": 0}
    >>> trial_line(settle(TrainConfig(), record["settings"]), record, 100)
    'val_acc: 0.527000, lr: 5.349517e-04, reg: 1.000000e-02, batch_size: 64, (0 / 100)'
    """
    learn = config.learn
    words = [f"val_acc: {record['val_acc']:.6f}", f"lr: {learn.lr:.6e}", f"reg: {learn.weight_decay:.6e}"]
    for name, value in record["settings"].items():
        if name not in IN_LINE:
            words.append(f"{name}: {value:.6e}" if isinstance(value, float) else f"{name}: {value}")
    return ", ".join([*words, f"({record['trial']} / {total})"])


def _in_words(parameter: Range | Choice) -> str:
    if isinstance(parameter, Choice):
        return ",".join(map(str, parameter.options))
    return f"{parameter.low:g}:{parameter.high:g}"


def _beyond(space: Space, best: Record) -> list[str]:
    return [
        f"the best {name}, {best['settings'][name]:.3g}, lies at an end of {_in_words(space[name])}: better may lie "
        f"beyond, see --space {name}=LOW:HIGH"
        for name in at_an_end(space, best["settings"])
    ]
