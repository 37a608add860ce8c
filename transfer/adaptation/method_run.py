"""One method on one pair of domains: its candidates, of which a label-free rule takes the best."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from transfer.adaptation.closed_form.alignment import fit_alignment
from transfer.adaptation.closed_form.classifier import align_features, distil, fold_alignment, solve_and_estimate
from transfer.adaptation.network import AdaptationNetwork
from transfer.adaptation.registry import BuildLosses, Method, find_method
from transfer.adaptation.selection.best_candidate import BestCandidate, CandidateModel
from transfer.adaptation.task import AdaptationTask
from transfer.adaptation.trainer import RECOMPUTED, AdaptationTrainer, Diverged
from transfer.config.adapt import StepsConfig
from transfer.freeze import Phase
from transfer.runtime.compiler import defer_compiler
from transfer.runtime.malloc import keep_freed_memory


@keep_freed_memory()
@defer_compiler()
def fit_method(
    name: str,
    best: BestCandidate,
    phase: Phase,
    config: StepsConfig,
    *,
    weights: tuple[float, ...] = (),
    bottleneck: int = 256,
    seed: int = 0,
) -> None:
    """Offer the candidates of the method called `name` to `best`; continue where its task's resume log says.

    Parameters
    ----------
    best : BestCandidate
        The backbone of its task is reset first, and left as the last candidate has it.
    weights : tuple of float
        Factors on the method's losses, each tried in turn.
    bottleneck : int
        Width of the features that the losses see.

    Raises
    ------
    TransferError
        An unknown method, or one that has nothing to do under this policy.
    """
    method, task = find_method(name), best.task
    has_losses = method.losses is not None
    factors = (weights if has_losses else ()) or (1.0,)
    saved = task.resume_log.open(best.state)
    if saved:
        best.restore(saved)
    task.parts = noted = 1
    for weight in factors[task.resume_log.weight :]:
        label = f"{name} x {weight:g}" if has_losses and len(weights) > 1 else name
        run = _MethodRun(label, method, weight, task, phase, config, seed, bottleneck)
        task.restart()
        torch.manual_seed(seed)
        try:
            for candidate in run.candidates(best.notes):
                best.consider(candidate)
        except Diverged as error:  # candidates of earlier epochs stay
            best.notes.append(f"{label}: {error}")
        if task.parts > noted:
            noted = task.parts
            best.notes.append(f"{label}: out of memory: steps process the tail in {noted} parts, {RECOMPUTED}")
        task.resume_log.finish_weight(len(factors))


@dataclass(frozen=True)
class _MethodRun:
    """One method with one loss weight."""

    label: str
    method: Method
    weight: float
    task: AdaptationTask
    phase: Phase
    config: StepsConfig
    seed: int
    bottleneck: int

    def candidates(self, notes: list[str]) -> Iterator[CandidateModel]:
        """Yield the candidates, one per epoch where losses are minimised; add to `notes`."""
        if self.method.fit:
            fit = self.method.fit(self.task, self.phase, self.config, self.seed, self.bottleneck)
            heads, evidence, more, accuracy = fit
            notes += more
            yield CandidateModel(self.label, evidence, heads, accuracy=accuracy)
        elif self.method.losses is None:
            yield self._solve()
        else:
            yield from self._train(self.method.losses)

    def _solve(self) -> CandidateModel:
        """Solve a closed form or a refinement, on frozen features or on those of a tail trained on the source."""
        task, method = self.task, self.method
        if not task.frozen and method.uses_source:
            list(self._new_trainer().train([], self.config.epochs, last=True))
        features = align_features(task, method.align)
        heads, accuracy = solve_and_estimate(task, features, source=method.uses_source)
        if method.refine:
            heads, accuracy = distil(task, features, method.refine(features.evidence(task, heads))), None
        evidence = features.evidence(task, heads)
        return CandidateModel(self.label, evidence, fold_alignment(heads, features.maps[-1]), accuracy=accuracy)

    def _train(self, build_losses: BuildLosses) -> Iterator[CandidateModel]:
        """Minimise the method's losses, after a warm-up on source labels alone; yield a candidate per epoch."""
        task, method, epochs = self.task, self.method, self.config.epochs
        trainer = self._new_trainer()
        network = trainer.network
        warmup = max(1, round(method.warmup * epochs)) if method.warmup else 0
        list(trainer.train([], warmup, last=True))
        losses = build_losses(self.bottleneck, len(task.classes), network.classifier)
        for _, loss in losses:
            loss.to(task.device)
        trained = trainer.train(
            [(self.weight * factor, loss) for factor, loss in losses],
            max(1, epochs - warmup),
            source=not method.source_free,
            classifier=not method.source_free,
            pseudo=method.pseudo_labels,
        )
        for line, evidence in trained:
            yield CandidateModel(f"{self.label}, epoch {line['epoch']}", evidence, network.heads(), line)

    def _new_trainer(self) -> AdaptationTrainer:
        network = new_network(self.task, self.method.align, self.bottleneck)
        return AdaptationTrainer(self.task, network, self.phase, self.config, self.seed)


def new_network(task: AdaptationTask, kind: str, bottleneck: int) -> AdaptationNetwork:
    """Return a network on the features of `task`, each domain scaled as the closed form `kind` does."""
    rows = np.concatenate([task.source, task.domains.labelled, task.domains.unlabelled])
    pooled = task.pooled(rows).cpu().numpy()
    maps = fit_alignment(kind, *(pooled[side] for side in task.sides(rows)))
    return AdaptationNetwork(maps, task.classes, bottleneck).to(task.device)
