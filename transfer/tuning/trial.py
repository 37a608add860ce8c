"""One trial of a search: an ordinary fit on shared data, scored on the validation images."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from torch import Tensor

from transfer.backbones.backbone import Backbone
from transfer.backbones.engines import calibrate
from transfer.backbones.weights import set_tensors
from transfer.config.shared import RunConfig
from transfer.config.train import HeadConfig, RegulariseConfig, TrainConfig
from transfer.config.unused import RunFacts, find_unused_options, reset_options
from transfer.data.label_sets.refusals import refuse_options_of_objects
from transfer.data.splits import mask_labels
from transfer.feature_cache import TrunkCache
from transfer.freeze import FreezePlan, FreezePolicy
from transfer.heads import HeadSpec
from transfer.heads.table_heads import head_specs
from transfer.heads.trained_classes import describe_untrained, find_untrained
from transfer.model import TransferModel
from transfer.probes.choose import can_solve_heads
from transfer.runs.facts import count_split, describe_images, describe_network
from transfer.runtime.device import pick_device
from transfer.semi_supervised.unlabelled_images import UnlabelledImages
from transfer.training.epoch import TrainingData
from transfer.training.fit import fit
from transfer.training.log_lines import collect_run_facts
from transfer.training.setup import (
    Images,
    drop_untrained,
    find_unlabelled_images,
    new_backbone,
    new_model,
    split_images,
)

KeepTraining = Callable[[int, float], bool]
"""Gets the number of epochs and the best validation score so far; returns whether the trial continues."""

# Options that the solved probe beside a search or a range test has as `transfer train` has them.
SOLVED_PROBE_DEFAULTS = ["policy", "probe", "loss", "augment", "views"]
SOLVED_PROBE_DEFAULTS += ["hidden", "dropout", "dropout_kind", "drop_connect"]


class _StopTrial(Exception):
    """Stops a trial early."""


class TrialRunner:
    """Runs trials on a split, features and a backbone that they share. The labels of test images are masked."""

    def __init__(self, config: TrainConfig, images: Images, cache: TrunkCache) -> None:
        data, seed = config.data, config.run.seed
        refuse_options_of_objects(config, images.table)
        self.parts = split_images(images, data, seed)
        images = images.hide(self.parts.rest)
        table = drop_untrained(mask_labels(images.table, self.parts.test, keep=()), self.parts)
        val = self.parts.val[table.object[self.parts.val] >= 0]
        self.data = TrainingData(
            table, images.inspection.sha256, self.parts.train, val, self.parts.extra, groups=self.parts.groups
        )
        images.facts.log(describe_images(images.table, count_split(self.parts), config.run.out is not None))
        images.facts.log(images.describe_levels(self.parts.plain_train)[0])
        images.facts.log(describe_untrained(find_untrained(images.table, self.parts.train)))
        self.images, self.seed, self.cache = images, seed, cache
        self.device = pick_device(config.learn.device)
        self._unlabelled: dict[tuple[str, ...], UnlabelledImages | None] = {}
        self._backbones: dict[tuple[bool, bool, int], tuple[Backbone, dict[str, Tensor]]] = {}

    def networks(self, config: HeadConfig) -> dict[str, list[HeadSpec]]:
        """Return the specifications of the heads of each network."""
        return head_specs(self.data.table, self.parts, config)[0]

    def log_network(self, config: TrainConfig, policy: str) -> None:
        """Log the backbone of `config`, and the `policy`."""
        specs = next(iter(self.networks(config.heads).values()))
        self.images.facts.log(describe_network(self._new_model(config, specs)[0].backbone, policy))

    def run_trial(self, config: TrainConfig, keep_training: KeepTraining) -> dict[str, Any]:
        """Fit until the last epoch, or until `keep_training` returns False.

        Returns
        -------
        dict
            ``val_acc``: mean accuracy over the heads in the best epoch, 0 if the loss was never finite; ``val``: the
            same by head; ``epochs``; ``stopped``: why, if early; ``seconds``. Separate networks are trained to the end.
        """
        started = time.perf_counter()
        networks = self.networks(config.heads)
        val: dict[str, float] = {}
        epochs, stopped = 0, ""
        for specs in networks.values():
            best, reached = (-math.inf, -math.inf), {spec.name: 0.0 for spec in specs if spec.weight}

            def check_epoch(line: dict[str, Any]) -> None:
                nonlocal best, reached, epochs
                if "val" not in line or "head" in line:  # one L2 regularisation of a solved probe
                    return
                epochs = line["epoch"]
                counted = {name: line["val"][name] for name in reached}
                value = fmean(counted.values()) if counted else 0.0, -line["val_loss"]
                if value > best:
                    best, reached = value, counted
                if len(networks) == 1 and not keep_training(epochs, best[0]):
                    raise _StopTrial

            model, plan = self._new_model(config, specs)
            data = self.training_data(config, model, plan)
            try:
                end = fit(model, plan, data, config.learn, self.cache, seed=self.seed, on_epoch=check_epoch).stopped
            except _StopTrial:
                end = "halving"
            stopped = stopped or end
            val |= reached
        seconds = round(time.perf_counter() - started, 3)
        return {"val_acc": fmean(val.values()), "val": val, "epochs": epochs, "stopped": stopped, "seconds": seconds}

    def run_solved_probe(self, config: TrainConfig) -> dict[str, Any] | None:
        """Return what :meth:`run_trial` returns for solved linear heads on the frozen backbone of `config`.

        None where there are no validation images, or a head's loss is not convex.
        """
        simple = reset_options(config, dict.fromkeys(SOLVED_PROBE_DEFAULTS))
        simple = replace(simple, learn=replace(simple.learn, regularise=RegulariseConfig()))
        networks = [self._new_model(simple, specs) for specs in self.networks(simple.heads).values()]
        if not len(self.parts.val) or not all(can_solve_heads(model.heads, simple.learn, 0) for model, _ in networks):
            return None
        return self.run_trial(simple, lambda epoch, score: True)

    def training_data(self, config: TrainConfig, model: TransferModel, plan: FreezePlan) -> TrainingData:
        """Return the data of a trial with an untrained `model`, with pseudo-labels if `config` names unlabelled images.

        Trials with the same stages and heads share them.
        """
        key = str(plan.policy.from_scratch), *plan.dropped, *model.heads.specs
        if key not in self._unlabelled:
            self._unlabelled[key] = find_unlabelled_images(model, plan, self.data, config, self.cache)
        return self.data.with_pseudo_labels(self._unlabelled[key])

    def collect_facts(self, config: TrainConfig) -> RunFacts:
        """Return what decides which options a run of `config` can use."""
        networks = {name: self._new_model(config, specs) for name, specs in self.networks(config.heads).items()}
        models, plan = {name: model for name, (model, _) in networks.items()}, next(iter(networks.values()))[1]
        return collect_run_facts(config, models, plan, self.data.table, self.parts)

    def recommend(self, config: TrainConfig) -> TrainConfig:
        """Return `config` as a training run of its own: in its own folder, without options that have no effect."""
        run = replace(config.run, out=RunConfig().out, overwrite=False, resume=False)
        config = replace(config, run=run)
        return reset_options(config, find_unused_options(config, self.collect_facts(config)))

    def _new_model(self, config: TrainConfig, specs: list[HeadSpec]) -> tuple[TransferModel, FreezePlan]:
        rows, backbone = self.parts.plain_train, self._backbone(config)
        model, plan = new_model(config, specs, self.seed, self.device, backbone, self.images.choose_levels(rows))
        paths, digests = self.images.table.paths, self.images.inspection.sha256
        calibrate(model.backbone, paths[rows], digests[rows], config.learn.workers)
        return model, plan

    def _backbone(self, config: TrainConfig) -> Backbone | None:
        """Return the shared backbone with its initial weights; None if the trial must load its own."""
        if config.learn.regularise.co_tuning:  # needs the pretrained classifier as well
            return None
        policy = FreezePolicy.parse(config.policy.policy)
        key = policy.from_scratch, policy.all_stages, policy.dropped  # policies that agree start from the same network
        if key not in self._backbones:
            backbone = new_backbone(config.backbone, self.seed, policy).to(self.device)
            start = {name: tensor.clone() for name, tensor in backbone.network.state_dict().items()}
            self._backbones[key] = backbone, start
        backbone, start = self._backbones[key]
        set_tensors(backbone.network, start)
        return backbone


class Halving:
    """Asynchronous successive halving (Li et al. 2020): a rung lets only the best of the trials so far continue.

    Rungs lie at 1 / `keep`, 1 / `keep` ** 2, ... of the epochs. A trial continues from a rung if it is among the best
    1 / `keep` of the trials that have reached it, itself included; with `keep` 1 all continue. A whole trial has
    `epochs` epochs.
    """

    def __init__(self, epochs: int, keep: int) -> None:
        self.keep, self.rungs = keep, rung_epochs(epochs, keep)

    def watch(self, earlier: Sequence[dict[str, Any]]) -> tuple[KeepTraining, list[float]]:
        """Return a function to call after each epoch of the next trial, and the list that collects its rung scores."""
        scores: list[float] = []

        def keep_training(epoch: int, score: float) -> bool:
            if epoch not in self.rungs[len(scores) :]:
                return True
            rung = len(scores)
            scores.append(score)
            others = [record["rungs"][rung] for record in earlier if len(record["rungs"]) > rung]
            return survives(score, others, self.keep)

        return keep_training, scores


def rung_epochs(epochs: int, keep: int) -> list[int]:
    """Return the epochs after which trials are compared.

    Examples
    --------
    >>> rung_epochs(9, 3), rung_epochs(30, 3), rung_epochs(30, 1)
    ([1, 3], [1, 3, 10], [])
    """
    rungs: set[int] = set()
    length = epochs / keep
    while keep > 1 and round(length) >= 1:
        rungs.add(round(length))
        length /= keep
    return sorted(rung for rung in rungs if rung < epochs)


def survives(score: float, others: Sequence[float], keep: int) -> bool:
    """Return whether `score` is among the best 1 / `keep`, rounded up, of itself and the `others`."""
    return sum(other > score for other in others) < math.ceil((len(others) + 1) / keep)
