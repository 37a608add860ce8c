"""`transfer lr-find`: the learning-rate range test (Smith 2017)."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from transfer.backbones.engines import calibrate
from transfer.backbones.weights import set_tensors
from transfer.config.commands import LrFindConfig
from transfer.config.serialise import iter_settings, to_dict
from transfer.config.unused import find_unused_options, format_unused_options
from transfer.errors import TransferError
from transfer.evaluation.predictions import target_tensors
from transfer.feature_cache import TrunkCache
from transfer.freeze import FreezePlan
from transfer.model import TransferModel
from transfer.runs.facts import describe_network, list_left_out
from transfer.runs.folder import RunFolder, refuse_resume
from transfer.runtime.device import get_versions
from transfer.runtime.malloc import keep_freed_memory
from transfer.training import optimizers
from transfer.training.epoch import EpochTrainer, TrainingData
from transfer.training.fit import scale_heads
from transfer.training.penalties import build
from transfer.training.penalties.pretrained import PretrainedCopy
from transfer.training.setup import new_model, read_images, refuse_zero_loss
from transfer.training.stochastic_depth import stochastic_depth
from transfer.tuning.trial import TrialRunner

LOSS_SMOOTHING = 0.9  # decay of the moving average of the loss
INITIAL_STEPS = 10  # whose median is the loss before anything is learned
MIN_FALL = 0.1  # share of the fall of the loss from which on its slope counts
WHOLE_RUN = "a range test is not a whole training run; the suggested command has it"
WHOLE_RUN_OPTIONS = "epochs schedule warmup cycles average ema_decay patience refit calibrate interference test_crops"
WHOLE_RUN_OPTIONS += " test_sizes minutes checkpoint_minutes report tensorboard"
# Options that the test itself does not use, and why.
NOT_IN_RANGE_TEST = {"lr": "the range test replaces it"} | dict.fromkeys(WHOLE_RUN_OPTIONS.split(), WHOLE_RUN)
DIVERGED_LOSS_RATIO = 4.0  # times the lowest smoothed loss: the test stops there


@dataclass(frozen=True)
class Curve:
    """The loss of each batch before its step, at geometrically increasing rates, raw and smoothed."""

    rate: list[float]
    loss: list[float]
    smoothed: list[float]

    @property
    def minimum_over_ten(self) -> float:
        """A tenth of the rate with the lowest smoothed loss, which itself is close to too high."""
        return self.rate[int(np.argmin(self.smoothed))] / 10

    @property
    def steepest(self) -> float:
        """The rate at which the smoothed loss falls fastest, per unit of the logarithm of the rate.

        Only from where a tenth of the fall is past: before, the loss of a batch changes by chance.
        """
        end = int(np.argmin(self.smoothed)) + 1
        initial = float(np.median(self.smoothed[:INITIAL_STEPS]))
        fallen = initial - MIN_FALL * (initial - self.smoothed[end - 1])
        start = max((i for i in range(end) if self.smoothed[i] >= fallen), default=0)
        if end - start < 3:
            return self.minimum_over_ten
        slope = np.gradient(self.smoothed[start:end], np.log(self.rate[start:end]))
        return self.rate[start + int(np.argmin(slope))]


def sweep(step: Callable[[float], float], low: float, high: float, steps: int) -> Curve:
    """Raise the rate from `low` to `high`; stop early if the loss diverges.

    `step` takes one optimizer step at a rate and returns the loss before it.

    Raises
    ------
    TransferError
        `high` is not above `low`, or the loss is not finite from the start.
    """
    if not low < high:
        raise TransferError(f"--high {high:g} must be above --low {low:g}")
    curve, average, least = Curve([], [], []), 0.0, math.inf
    with tqdm(np.geomspace(low, high, steps), desc="range test", unit="step", disable=None, leave=False) as bar:
        for rate in bar:
            loss = step(float(rate))
            if not math.isfinite(loss):
                break
            average = LOSS_SMOOTHING * average + (1 - LOSS_SMOOTHING) * loss
            smoothed = average / (1 - LOSS_SMOOTHING ** (len(curve.rate) + 1))
            if smoothed > DIVERGED_LOSS_RATIO * least:
                break
            least = min(least, smoothed)
            for values, value in ((curve.rate, float(rate)), (curve.loss, loss), (curve.smoothed, smoothed)):
                values.append(value)
    if len(curve.rate) < 2:
        raise TransferError(f"the loss is not finite at the lowest rate, {low:g}: check the data, or lower --low")
    return curve


@contextmanager
def restored(model: TransferModel) -> Iterator[None]:
    """Restore the weights, frozen parts and mode of `model`, and torch's random state, on leaving the context."""
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    wanted = [(p, p.requires_grad, p.grad) for p in model.parameters()]
    modes = [(module, module.training) for module in model.modules()]
    cut, frozen = model.cut, model._frozen_modules
    devices = [torch.cuda.current_device()] if next(model.parameters()).is_cuda else []
    with torch.random.fork_rng(devices):
        try:
            yield
        finally:
            set_tensors(model, state)
            model.cut, model._frozen_modules = cut, frozen
            for parameter, requires_grad, gradient in wanted:
                parameter.requires_grad_(requires_grad)
                parameter.grad = gradient
            for module, training in modes:
                module.training = training


@keep_freed_memory()
def range_test(
    model: TransferModel, plan: FreezePlan, data: TrainingData, test: LrFindConfig, cache: TrunkCache
) -> Curve:
    """Return the training loss by learning rate in the last phase of `plan`; `model` is left unchanged."""
    config, seed = test.train.learn, test.train.run.seed
    refuse_zero_loss(model, config)
    size = config.batch_size or len(data.train)
    labels, phase = target_tensors(data.table, model), plan.phases[-1]
    with restored(model):
        torch.manual_seed(seed)
        pretrained = PretrainedCopy(model, data.train, labels) if build.needs_pretrained_copy(config) else None
        model.freeze(phase)
        feed = cache.feed(model, data.table.paths, data.digests, batch_size=size, workers=config.workers)
        feed.prepare(data.train)
        if plan.pretrained:
            scale_heads(model, feed, data.train, seed)
        optimizer = optimizers.build_optimizer(model, plan, config)
        penalties = build.build_penalties(model, phase, config, feed, pretrained)
        batches = _batches(data.train, size, seed)
        taken = 0

        def step(rate: float) -> float:
            nonlocal taken
            taken += 1
            at_rate = replace(config, lr=rate, schedule="constant", warmup=0.0)
            batch = replace(data, train=next(batches))
            trainer = EpochTrainer(model, feed, batch, labels, optimizer, phase, at_rate, penalties)
            return trainer.run_epoch((1, 1), [seed, taken])["loss"]

        with stochastic_depth(model.backbone, phase, config.regularise.stochastic_depth):
            return sweep(step, test.low, test.high, test.steps)


def _batches(rows: np.ndarray, size: int, seed: int) -> Iterator[np.ndarray]:
    """Yield batches endlessly; every row is drawn once before any is drawn twice."""
    rng, left = np.random.default_rng(seed), rows[:0]
    while True:
        while len(left) < size:
            left = np.concatenate([left, rng.permutation(rows)])
        yield left[:size]
        left = left[size:]


def lr_find(config: LrFindConfig) -> dict[str, Any]:
    """Run the range test; return the curve and the suggested rates.

    Returns
    -------
    dict
        ``curve``: rate, loss and smoothed; ``steepest``, ``minimum_over_ten``, ``suggestion`` (the lower of both);
        ``recommended``, the config of the training run that has this rate; ``solved_probe``, the validation accuracy of
        a solved probe (see :meth:`TrialRunner.run_solved_probe`); ``notes``, ``config``, ``versions``.

    Raises
    ------
    TransferError
        Bad input, or an optimizer or a policy that has no learning rate.
    """
    train = config.train
    optimizers.check_optimizer(train.learn.optimizer)
    if train.learn.optimizer == "lbfgs":
        raise TransferError("--optimizer lbfgs chooses its step length by line search: there is no rate to find")
    if train.heads.heads == "separate":
        raise TransferError("--heads separate trains several networks: find the rate of one with --heads dual")
    out, seed = train.run.out, train.run.seed
    refuse_resume(train.run, "lr-find")
    folder = RunFolder(out, to_dict(config), overwrite=train.run.overwrite) if out else None
    cache = TrunkCache(train.cache)
    images = read_images(train.data, cache.disk_cache)
    runner = TrialRunner(train, images, cache)
    (specs,) = runner.networks(train.heads).values()
    rows = runner.parts.plain_train
    model, plan = new_model(train, specs, seed, runner.device, levels=images.choose_levels(rows))
    calibrate(model.backbone, images.table.paths[rows], images.inspection.sha256[rows], train.learn.workers)
    if plan.policy.all_stages:
        raise TransferError(f"--policy {plan.policy} is solved, not trained: there is no rate to find")
    images.facts.log(describe_network(model.backbone, str(plan.policy)))
    facts = runner.collect_facts(train)
    if facts.solved[-1]:
        raise TransferError("--probe solved has no learning rate: leave it out, or train more than the heads")
    build.check_penalties(model, plan, train.learn, list(facts.solved))
    default = LrFindConfig().train
    given = {name for name, value, usual in iter_settings(train, default) if value != usual}
    curve = range_test(model, plan, runner.training_data(train, model, plan), config, cache)
    suggestion = min(curve.steepest, curve.minimum_over_ten)
    recommended = replace(train, learn=replace(train.learn, lr=float(f"{suggestion:.2g}")))
    result = {
        "command": "lr-find",
        "config": to_dict(config),
        "versions": get_versions(),
        "curve": {"rate": curve.rate, "loss": curve.loss, "smoothed": curve.smoothed},
        "steepest": curve.steepest,
        "minimum_over_ten": curve.minimum_over_ten,
        "suggestion": suggestion,
        "recommended": to_dict(runner.recommend(recommended)),
        "solved_probe": runner.run_solved_probe(train),
        "notes": [
            *format_unused_options({name: NOT_IN_RANGE_TEST[name] for name in NOT_IN_RANGE_TEST if name in given}),
            *format_unused_options(find_unused_options(train, facts, default)),
        ],
    }
    if folder:
        folder.write_left_out(list_left_out(images.table))
        folder.write_result(result)
    return result
