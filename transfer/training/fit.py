"""Fit a model under a freeze plan, phase by phase: each phase is trained in epochs or solved."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from transfer import freeze
from transfer.backbones.weights import set_tensors
from transfer.config.train import LearnConfig
from transfer.evaluation.predictions import evaluate_predictions, main_scores, predict_rows, target_tensors
from transfer.feature_cache import Feed, TrunkCache
from transfer.freeze import FreezePlan, Phase
from transfer.model import TransferModel
from transfer.probes.choose import choose_solver, is_phase_solved
from transfer.runs.states import PartStates
from transfer.runtime import distributed, signals
from transfer.runtime.compiler import defer_compiler
from transfer.runtime.malloc import keep_freed_memory
from transfer.runtime.time_limit import FIT_INTO_LIMIT, TimeLimit
from transfer.training import optimizers
from transfer.training.averaging import WISE_SHARES, WeightAverage, choose_share, cycle_bounds, interpolate_weights
from transfer.training.diagnosis.gradient_conflict import measure_conflict
from transfer.training.epoch import AUGMENTATIONS, EpochTrainer, row_weights
from transfer.training.penalties import build
from transfer.training.penalties.penalty import Penalty
from transfer.training.penalties.pretrained import PretrainedCopy
from transfer.training.resume import NO_SCORE, FitCheckpoints, FitPosition, FitResult, PhaseBest, PhaseChoice
from transfer.training.setup import TrainingData, refuse_zero_loss
from transfer.training.stochastic_depth import stochastic_depth

SCALE_ROWS = 1024  # training rows that set the scale of the heads' input


@keep_freed_memory()
@defer_compiler()
def fit(  # the last five are options that a plain fit does not need
    model: TransferModel,
    plan: FreezePlan,
    data: TrainingData,
    config: LearnConfig,
    cache: TrunkCache,
    *,
    seed: int = 0,
    repeat: list[PhaseChoice] | None = None,
    part: PartStates | None = None,
    limit: TimeLimit | None = None,
    on_epoch: Callable[[dict[str, Any]], None] = lambda line: None,
) -> FitResult:
    """Train `model` under `plan`; it ends with the weights that were best on the validation rows.

    Without validation rows the last epoch counts. A loss that becomes NaN or infinite stops training: the model gets
    the last good weights, and `stopped` says why. A penalty that cannot be used under `plan` raises a TransferError.

    Parameters
    ----------
    repeat : list of PhaseChoice, optional
        For each phase the number of epochs, over which the learning rate schedule runs, or the L2 regularisation.
        Nothing is chosen: ``--refit`` repeats a chosen run.
    part : PartStates, optional
        Where states are saved. An interrupted fit continues from the last one to the same bits and reports its lines
        again; a finished one returns its result.
    limit : TimeLimit, optional
        Phases in which something is trained are shortened to the epochs that fit into their share of it, one at least.
    on_epoch : callable
        Receives each line.
    """
    solved = [is_phase_solved(model, phase, config, cache.views) for phase in plan.phases]
    build.check_penalties(model, plan, config, solved)
    if not all(solved):
        refuse_zero_loss(model, config)
    torch.manual_seed(seed)
    before = freeze.hash_frozen_tensors(model.backbone, plan.phases)
    moving = [name for name in model.state_dict() if name.removeprefix("backbone.network.") not in before]
    labels = target_tensors(data.table, model)
    pretrained = PretrainedCopy(model, data.train, labels) if build.needs_pretrained_copy(config) else None
    checkpoints = FitCheckpoints(part, model, moving)
    initial = PhaseBest(NO_SCORE, 0, checkpoints.copy_weights())
    saved = checkpoints.load(initial.weights)
    result, position = saved or (FitResult(), FitPosition(initial, initial))
    for line in result.epochs:
        on_epoch(line)
    if position is None:
        return result
    trainer = PhaseTrainer(
        model, plan, data, config, cache, labels, seed, repeat, on_epoch, result, position, checkpoints, pretrained
    )
    trainer.limit = limit or TimeLimit()
    phases = plan.phases if repeat is None else plan.phases[: len(repeat)]
    for number, phase in list(enumerate(phases))[position.phase :]:
        scale = number == 0 and plan.pretrained and not saved and not data.warm
        best = trainer.run_phase(phase, solved=solved[number], scale=scale)
        position.choices.append(best.choice)
        if best.value > position.best.value:
            position.best, result.best = best, list(position.choices)
        if result.stopped:
            break
        set_tensors(model, best.weights)
        position.next_phase()
    set_tensors(model, position.best.weights)
    model.eval()
    result.parts = position.progress.parts
    result.optimizer_bytes = optimizers.count_state_bytes(trainer.optimizer) if trainer.optimizer else 0
    result.moved += freeze.find_changed_tensors(before, freeze.hash_frozen_tensors(model.backbone, plan.phases))
    checkpoints.finish(result)
    return result


@dataclass
class PhaseTrainer:
    """Trains or solves the phases of one fit."""

    model: TransferModel
    plan: FreezePlan
    data: TrainingData
    config: LearnConfig
    cache: TrunkCache
    labels: dict[str, Tensor]
    seed: int
    repeat: list[PhaseChoice] | None
    on_epoch: Callable[[dict[str, Any]], None]
    result: FitResult
    position: FitPosition
    checkpoints: FitCheckpoints
    pretrained: PretrainedCopy | None
    optimizer: Optimizer | None = None
    limit: TimeLimit = field(default_factory=TimeLimit)

    def run_phase(self, phase: Phase, *, solved: bool, scale: bool) -> PhaseBest:
        """Freeze the model for `phase`, fit it, and return its best weights; with `scale`, scale the heads first."""
        model, data, config = self.model, self.data, self.config
        model.freeze(phase)
        size = config.batch_size or len(data.train)
        if not solved:
            size = freeze.choose_batch_size(len(data.train), size, freeze.count_least_rows(model.train()))
        feed = self.cache.feed(model, data.table.paths, data.digests, batch_size=size, workers=config.workers)
        feed.prepare(np.concatenate([data.train, data.val]))
        # Of a single phase the proof of the whole fit is enough.
        frozen = freeze.hash_frozen_tensors(model.backbone, (phase,)) if len(self.plan.phases) > 1 else None
        if solved:
            best = self.solve(feed, phase)
        else:
            if scale:
                scale_heads(model, feed, data.train, self.seed)
            self.optimizer = self.optimizer or optimizers.build_optimizer(model, self.plan, config)
            penalties = build.build_penalties(model, phase, config, feed, self.pretrained)
            with stochastic_depth(model.backbone, phase, config.regularise.stochastic_depth):
                best = self.train(feed, phase, self.optimizer, penalties)
            if config.average == "wise_ft" and self.position.phase and not self.result.stopped:
                best = self.interpolate(feed, phase, best)
        if frozen is not None:
            after = freeze.hash_frozen_tensors(model.backbone, (phase,))
            self.result.moved += freeze.find_changed_tensors(frozen, after)
        return best

    def train(self, feed: Feed, phase: Phase, optimizer: Optimizer, penalties: tuple[Penalty, ...]) -> PhaseBest:
        """Train for a phase's epochs; return the best of them."""
        at, config = self.position, self.config
        repeated = self.repeat[at.phase] if self.repeat else None
        length = repeated if isinstance(repeated, int) else max(1, round(config.epochs * phase.share))
        average = WeightAverage(self.model, config, length)
        if not at.epochs and not at.progress.step:
            self.result.snapshots.clear()
        save = partial(self.checkpoints.save, at, optimizer, average, self.result)

        def after_step() -> None:
            average.after_step()
            self.checkpoints.step(save)

        trainer = EpochTrainer(self.model, feed, self.data, self.labels, optimizer, phase, config, penalties)
        trainer.after_step, trainer.on_failure = after_step, partial(self.checkpoints.rescue, save)
        self.checkpoints.restore(optimizer, average)
        begun, before, planned, epoch = time.monotonic(), at.epochs, length, at.epochs
        limit = self.limit.share(phase.share / sum(later.share for later in self.plan.phases[at.phase :]))
        while epoch < length:
            epoch += 1
            if config.patience and config.cycles == 1 and at.wait >= config.patience:
                break
            start_time, number = time.perf_counter(), len(self.result.epochs) + 1
            line: dict[str, Any] = {"phase": phase.name, "epoch": number, "of": number + length - epoch}
            start, end = cycle_bounds(epoch, length, config.cycles)
            line |= trainer.run_epoch((epoch - start, end - start), [self.seed, at.phase, epoch], at.progress)
            if not self.checkpoints.all_finite():  # the last step broke the weights, unseen by any loss
                line["loss"] = math.nan
            if not math.isfinite(line["loss"]):
                self.result.stopped = self._describe_stop(line)
                break
            average.after_epoch(epoch)
            with average.in_place(feed, self.data.train):
                value = self._finish_line(feed, line, epoch, start_time)
                at.wait += 1
                if value > at.current.value:
                    at.current, at.wait = PhaseBest(value, epoch, self.checkpoints.copy_weights(), number), 0
                if config.cycles > 1 and epoch == end:
                    self.result.snapshots.append(self.checkpoints.copy_weights())
            at.next_epoch()
            self.checkpoints.step(save, end=True)
            if not repeated and config.cycles == 1:
                more = limit.count_epochs(length - epoch, (time.monotonic() - begun) / (epoch - before))
                length = average.epochs = epoch + distributed.broadcast(more)
        if at.epochs == length < planned:
            self.result.shortened.append(f"{phase.name}: {length} of {planned} epochs {FIT_INTO_LIMIT}")
        return at.current

    def interpolate(self, feed: Feed, phase: Phase, tuned: PhaseBest) -> PhaseBest:
        """Return weights between the best before `phase` and those of its best epoch, `tuned` (WiSE-FT)."""
        before, lines = self.position.best.weights, {share: dict[str, Any]() for share in WISE_SHARES}

        def measure(share: float) -> tuple[float, float] | None:
            set_tensors(self.model, interpolate_weights(before, tuned.weights, share))
            return self._validate(feed, lines[share])

        share, value = choose_share(measure)
        self.result.interpolated[phase.name] = {"share": share, "val": lines[share].get("val", {})}
        set_tensors(self.model, interpolate_weights(before, tuned.weights, share))
        return replace(tuned, value=value or tuned.value, weights=self.checkpoints.copy_weights())

    def _finish_line(self, feed: Feed, line: dict[str, Any], epoch: int, start: float) -> tuple[float, float]:
        """Validate the model, report the line, and return the score; a later epoch scores more without validation."""
        value = self._validate(feed, line) or (float(self.position.phase), float(epoch))
        if self.config.interference and "solved" not in line:
            found = measure_conflict(self.model, feed, self.data.train, self.labels, self.config)
            line |= {"interference": found} if found else {}
        line["seconds"] = round(time.perf_counter() - start, 3)
        self._report(line)
        return value

    def _describe_stop(self, line: dict[str, Any]) -> str:
        best = max(self.position.current, self.position.best, key=lambda each: each.value).epoch
        return (
            f"the loss became {line['loss']} in epoch {line['epoch']} (lr {self.config.lr:g}); "
            f"the model has {f'the weights of epoch {best}' if best else 'its initial weights'}; try a lower --lr"
        )

    def _report(self, line: dict[str, Any]) -> None:
        self.result.epochs.append(line)
        self.on_epoch(line)

    def solve(self, feed: Feed, phase: Phase) -> PhaseBest:
        """Solve a phase in which only linear heads are trained."""
        data, model = self.data, self.model
        repeated = self.repeat[self.position.phase] if self.repeat else None
        start = time.perf_counter()
        rows, features = feed.load_all_views(data.train, AUGMENTATIONS[self.config.augment])
        weights = row_weights(data, model, self.config.balance)
        val = None
        if self.repeat is None and len(data.val):
            val = feed.load_all_views(data.val)[1], self._labels(data.val)

        def on_line(line: dict[str, Any]) -> None:
            self._report({"phase": phase.name, "epoch": len(self.result.epochs) + 1} | line)
            signals.raise_if_stop_requested()

        solved = choose_solver(model.backbone, phase)(
            model.heads,
            (features, self._labels(rows)),
            val,
            smoothing=self.config.label_smoothing,
            row_weights={name: weight[torch.from_numpy(rows)] for name, weight in weights.items()} or None,
            fixed_l2=repeated if isinstance(repeated, dict) else None,
            on_line=on_line,
        )
        line: dict[str, Any] = {"phase": phase.name, "epoch": len(self.result.epochs) + 1, "solved": solved}
        value = self._finish_line(feed, line, 1, start)
        return PhaseBest(value, solved, self.checkpoints.copy_weights(), len(self.result.epochs))

    def _validate(self, feed: Feed, line: dict[str, Any]) -> tuple[float, float] | None:
        """Return the score on the validation rows and write it into `line`; None in a refit or without such rows."""
        val = self.data.val
        if self.repeat is not None or not len(val):
            return None
        predictions, line["val_loss"] = predict_rows(self.model, feed, val, self.labels)
        report = evaluate_predictions(self.data.table.take(val), predictions, intervals=False)
        scores = main_scores(report, self.model.heads.specs)
        line["val"] = {name: round(score, 6) for name, score in scores.items()}
        counted = [score for name, score in scores.items() if self.model.heads.specs[name].weight]
        mean_score = float(np.mean(counted)) if counted else 0.0
        value = distributed.broadcast([mean_score, -line["val_loss"]])
        if guard := self.data.guard:
            line["old_val"] = round(guard.score(self.data.table, val, predictions, self.model), 6)
            if not guard.accepts(line["old_val"]):
                return NO_SCORE
        return value[0], value[1]

    def _labels(self, rows: np.ndarray) -> dict[str, Tensor]:
        return {name: label[torch.from_numpy(rows)] for name, label in self.labels.items()}


def scale_heads(model: TransferModel, feed: Feed, rows: np.ndarray, seed: int) -> None:
    """Set the heads' scaling to the centre and spread of the present features of a sample of `rows`."""
    model.eval()
    sample = np.random.default_rng(seed).permutation(rows)[:SCALE_ROWS]
    with torch.inference_mode():
        batches = feed.batches(sample, split=True)
        features = torch.cat([feed.gather_batch(model.features(x).float(), len(batch)) for batch, x in batches])
    model.heads.scale_to(features)
