"""The one loop: every policy is a plan of phases, and learns here."""

import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from transfer import freeze
from transfer.config.train import LearnConfig
from transfer.evaluation.predictions import evaluate_predictions, main_scores, predict_rows, target_tensors
from transfer.feature_cache import Feed, TrunkCache
from transfer.freeze import FreezePlan, Phase
from transfer.model import TransferModel
from transfer.probes.choose import choose_solver, is_phase_solved
from transfer.runs.states import PartStates
from transfer.runtime import distributed, signals
from transfer.runtime.malloc import keep_freed_memory
from transfer.training import optimizers
from transfer.training.averaging import Average, cycle
from transfer.training.epoch import AUGMENTATIONS, TrainingData, epoch, row_weights
from transfer.training.gradient_conflict import interference
from transfer.training.penalties import build
from transfer.training.penalties.penalty import Penalty
from transfer.training.penalties.pretrained import PretrainedCopy
from transfer.training.resume import NO_SCORE, FitCheckpoints, FitPosition, PhaseBest, PhaseChoice
from transfer.training.stochastic_depth import stochastic_depth

SCALE_ROWS = 1024


@dataclass
class FitResult:
    """What happened.

    Parameters
    ----------
    epochs : list of dict
        A line per epoch (in a solved phase: per head and strength), as in metrics.jsonl.
    best : list of PhaseChoice
        For each phase up to the one whose weights are kept.
    moved : tuple of str
        Names of frozen tensors that moved: none, unless something is wrong (law 1).
    optimizer_bytes : int
        What the optimizer keeps beside parameters and gradients; 0 where all was solved.
    snapshots : list of dict of str to Tensor
        With several cycles: all that may move, as it was at the end of each cycle of the last trained phase.
    stopped : str
        Why training stopped early with an error, if it did.
    parts : int
        In how many parts batches were taken at last, for want of memory.
    """

    epochs: list[dict[str, Any]] = field(default_factory=list)
    best: list[PhaseChoice] = field(default_factory=list)
    moved: tuple[str, ...] = ()
    optimizer_bytes: int = 0
    snapshots: list[dict[str, Tensor]] = field(default_factory=list)
    stopped: str = ""
    parts: int = 1

    @property
    def refit_choices(self) -> list[PhaseChoice]:
        """Of each phase in `best` the strengths, or all of its epochs: up to the best may be a few, by chance."""
        lengths = Counter(line["phase"] for line in self.epochs).values()
        return [n if isinstance(best, int) else best for n, best in zip(lengths, self.best, strict=False)]


@keep_freed_memory()
def fit(
    model: TransferModel,
    plan: FreezePlan,
    data: TrainingData,
    config: LearnConfig,
    cache: TrunkCache,
    *,
    seed: int = 0,
    repeat: list[PhaseChoice] | None = None,
    part: PartStates | None = None,
    on_epoch: Callable[[dict[str, Any]], None] = lambda line: None,
) -> FitResult:
    """Teach `model` under `plan`; leave it with the weights that were best on the validation rows.

    Without validation rows the last epoch counts. A loss that turns NaN or infinite stops training; the last good
    weights are kept and `stopped` says so.

    Parameters
    ----------
    repeat : list of PhaseChoice, optional
        Learn for just so many epochs in each phase, the rate's course run through in these, or at just these
        strengths, choosing nothing: how ``--refit`` repeats a chosen run.
    part : PartStates, optional
        Where its states are kept. If it was begun before, go on from there, if it was done, that is its result: to the
        same bits, lines told again included.
    on_epoch : callable
        Gets each line.

    Raises
    ------
    TransferError
        What `config` regularises by cannot be under `plan`.
    """
    solved = [is_phase_solved(model, phase, config, cache.views) for phase in plan.phases]
    build.check_penalties(model, plan, config, solved)
    torch.manual_seed(seed)
    result = FitResult()
    before = freeze.hash_frozen_tensors(model.backbone, plan.phases)
    moving = [name for name in model.state_dict() if name.removeprefix("backbone.network.") not in before]
    labels = target_tensors(data.table, model)
    start = PretrainedCopy(model, data.train, labels) if build.needs_pretrained_copy(config) else None
    fresh = PhaseBest(NO_SCORE, 0, _copy(model, moving))
    place, keeper = FitPosition(fresh, fresh), FitCheckpoints(part, model, moving)
    optimizer: Optimizer | None = None

    def tell(line: dict[str, Any]) -> None:
        result.epochs.append(line)
        on_epoch(line)

    begun = keeper.go_on(place, vars(result), on_epoch)
    if keeper.done:
        return result
    course = PhaseTrainer(model, data, config, labels, moving, seed, repeat, tell, result, place, keeper)
    phases = plan.phases if repeat is None else plan.phases[: len(repeat)]
    for number, phase in list(enumerate(phases))[place.phase :]:
        model.freeze(phase)
        size = config.batch_size or len(data.train)
        feed = cache.feed(model, data.table.paths, data.digests, batch_size=size, workers=config.workers)
        feed.prepare(np.concatenate([data.train, data.val]))
        held = freeze.hash_frozen_tensors(model.backbone, (phase,))
        if solved[number]:
            here = course.solve(feed, phase)
        else:
            if number == 0 and plan.pretrained and not begun:
                scale_heads(model, feed, data.train, seed)
            optimizer = optimizer or optimizers.build(model, plan, config)
            penalties = build.build_penalties(model, phase, config, feed, start)
            with stochastic_depth(model.backbone, phase, config.regularise.stochastic_depth):
                here = course.train(feed, phase, optimizer, penalties)
        result.moved += freeze.find_changed_tensors(held, freeze.hash_frozen_tensors(model.backbone, (phase,)))
        place.done.append(here.chosen)
        if here.value > place.best.value:
            place.best, result.best = here, list(place.done)
        if result.stopped:
            break
        model.load_state_dict(here.weights, strict=False)
        place.next_phase()
    model.load_state_dict(place.best.weights, strict=False)
    model.eval()
    result.parts = place.progress.parts
    result.optimizer_bytes = optimizers.state_bytes(optimizer) if optimizer else 0
    result.moved += freeze.find_changed_tensors(before, freeze.hash_frozen_tensors(model.backbone, plan.phases))
    keeper.finish(vars(result))
    return result


@dataclass
class PhaseTrainer:
    """What all phases of one fit share."""

    model: TransferModel
    data: TrainingData
    config: LearnConfig
    labels: dict[str, Tensor]
    moving: list[str]
    seed: int
    repeat: list[PhaseChoice] | None
    tell: Callable[[dict[str, Any]], None]
    result: FitResult
    place: FitPosition
    keeper: FitCheckpoints

    def train(self, feed: Feed, phase: Phase, optimizer: Optimizer, penalties: tuple[Penalty, ...]) -> PhaseBest:
        """Train for a phase's epochs; return the best of them."""
        at, number = self.place, self.place.phase
        again = self.repeat[number] if self.repeat else None
        length = again if isinstance(again, int) else max(1, round(self.config.epochs * phase.share))
        config, average = self.config, Average(self.model, self.config, length)
        if not at.epochs and not at.progress.step:
            self.result.snapshots.clear()
        save = partial(self.keeper.save, at, optimizer, average, vars(self.result))

        def after_step() -> None:
            average.after_step()
            self.keeper.step(save)

        self.keeper.restore(optimizer, average)
        for count in range(at.epochs + 1, length + 1):
            if config.patience and config.cycles == 1 and at.wait >= config.patience:
                break
            began = time.perf_counter()
            told = len(self.result.epochs)
            line: dict[str, Any] = {"phase": phase.name, "epoch": told + 1, "of": told + 1 + length - count}
            start, end = cycle(count, length, config.cycles)
            place, draw = (count - start, end - start), [self.seed, number, count]
            line |= epoch(
                *(self.model, feed, self.data, self.labels, optimizer, phase, config, place, draw),
                after_step=after_step,
                penalties=penalties,
                so_far=at.progress,
                failing=partial(self.keeper.rescue, save),
            )
            if not _finite(self.model, self.moving):  # the last step broke them, which no loss has seen yet
                line["loss"] = math.nan
            if not math.isfinite(line["loss"]):
                best_epoch = max(at.here, at.best, key=lambda some: some.value).line
                self.result.stopped = (
                    f"the loss became {line['loss']} in epoch {line['epoch']} (lr {config.lr:g}); "
                    f"the weights of {f'epoch {best_epoch}' if best_epoch else 'the start'} are kept; try a lower --lr"
                )
                break
            average.after_epoch(count)
            with average.in_place(feed, self.data.train):
                value = self._validate(feed, line) or (float(number), float(count))
                shared = config.interference and interference(self.model, feed, self.data.train, self.labels, config)
                line |= {"interference": shared} if shared else {}
                line["seconds"] = round(time.perf_counter() - began, 3)
                self.tell(line)
                if config.cycles > 1 and count == end:
                    self.result.snapshots.append(_copy(self.model, self.moving))
                if value > at.here.value:
                    at.here, at.wait = PhaseBest(value, count, _copy(self.model, self.moving), line["epoch"]), 0
                else:
                    at.wait += 1
            at.next_epoch()
            self.keeper.step(save, end=True)
        return at.here

    def solve(self, feed: Feed, phase: Phase) -> PhaseBest:
        """Solve a phase in which only linear heads learn."""
        data, model, number = self.data, self.model, self.place.phase
        again = self.repeat[number] if self.repeat else None
        began = time.perf_counter()
        rows, features = feed.load_all_views(data.train, AUGMENTATIONS[self.config.augment])
        weights = row_weights(data, model) if self.config.balance == "loss" else {}
        val = None
        if self.repeat is None and len(data.val):
            val = feed.load_all_views(data.val)[1], self._labels(data.val)

        def on_line(line: dict[str, Any]) -> None:
            self.tell({"phase": phase.name, "epoch": len(self.result.epochs) + 1} | line)
            signals.raise_if_stop_requested()

        solved = choose_solver(model.backbone, phase)(
            model.heads,
            (features, self._labels(rows)),
            val,
            smoothing=self.config.label_smoothing,
            row_weights={name: weight[torch.from_numpy(rows)] for name, weight in weights.items()} or None,
            fixed_l2=again if isinstance(again, dict) else None,
            on_line=on_line,
        )
        line: dict[str, Any] = {"phase": phase.name, "epoch": len(self.result.epochs) + 1, "solved": solved}
        value = self._validate(feed, line) or (float(number), 1.0)
        line["seconds"] = round(time.perf_counter() - began, 3)
        self.tell(line)
        return PhaseBest(value, solved, _copy(model, self.moving), len(self.result.epochs))

    def _validate(self, feed: Feed, line: dict[str, Any]) -> tuple[float, float] | None:
        """Return how good the model is on the validation rows, writing it into `line`; None where nothing is chosen."""
        val = self.data.val
        if self.repeat is not None or not len(val):
            return None
        answers, line["val_loss"] = predict_rows(self.model, feed, val, self.labels)
        report = evaluate_predictions(self.data.table.take(val), answers, intervals=False)
        scores = main_scores(report, self.model.heads.specs)
        line["val"] = {name: round(score, 6) for name, score in scores.items()}
        counted = [score for name, score in scores.items() if self.model.heads.specs[name].weight]
        mean_score = float(np.mean(counted)) if counted else 0.0
        value = distributed.broadcast([mean_score, -line["val_loss"]])
        return value[0], value[1]

    def _labels(self, rows: np.ndarray) -> dict[str, Tensor]:
        return {name: label[torch.from_numpy(rows)] for name, label in self.labels.items()}


def scale_heads(model: TransferModel, feed: Feed, rows: np.ndarray, seed: int) -> None:
    """Give the heads the centre and spread of features of some of `rows`, drawn by `seed`, as they are now."""
    model.eval()
    some = np.random.default_rng(seed).permutation(rows)[:SCALE_ROWS]
    with torch.inference_mode():
        features = torch.cat(
            [
                feed.gather_batch(model.features(own).float(), len(batch))
                for batch, own in feed.batches(some, split=True)
            ]
        )
    model.heads.scale_to(features)


def _finite(model: nn.Module, names: list[str]) -> bool:
    state = model.state_dict()
    return all(bool(state[name].isfinite().all()) for name in names)


def _copy(model: nn.Module, names: list[str]) -> dict[str, Tensor]:
    state = model.state_dict()
    return {name: state[name].detach().clone() for name in names}
