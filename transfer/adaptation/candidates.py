"""One method on one pair: its candidates, and of these the one that a label-free rule takes."""

from collections.abc import Iterator

import numpy as np
import torch

from transfer.adaptation.closed_form.alignment import fit_alignment
from transfer.adaptation.closed_form.classifier import align_features, distil, fold_alignment, solve_classifier
from transfer.adaptation.network import AdaptationNetwork
from transfer.adaptation.registry import BuildLosses, Method, find_method
from transfer.adaptation.selection.best_candidate import BestCandidate, CandidateModel
from transfer.adaptation.step import Diverged
from transfer.adaptation.task import AdaptationTask
from transfer.adaptation.trainer import RECOMPUTED, AdaptationTrainer
from transfer.config.adapt import StepsConfig
from transfer.freeze import Phase
from transfer.runtime.malloc import keep_freed_memory


@keep_freed_memory()
def fit(
    name: str,
    stage: AdaptationTask,
    phase: Phase,
    config: StepsConfig,
    choice: BestCandidate,
    *,
    weights: tuple[float, ...] = (),
    bottleneck: int = 256,
    seed: int = 0,
) -> None:
    """Offer the candidates of the method called `name` to `choice`, from where the stage's journal says that it was.

    Parameters
    ----------
    stage : AdaptationTask
        Its backbone is reset first and left as the last candidate has it.
    phase : Phase
        Which stages learn.
    weights : tuple of float
        Factors on the method's losses, each tried in turn.
    bottleneck : int
        Width of what the losses see.
    seed : int

    Raises
    ------
    TransferError
        No such method, or one that this policy leaves nothing to do for.
    """
    method, journal = find_method(name), stage.journal
    losses = method.losses is not None
    factors = (weights if losses else ()) or (1.0,)
    saved = journal.open(choice.state)
    if saved:
        choice.restore(saved)
    stage.parts = noted = 1
    for weight in factors[journal.weight :]:
        label = f"{name} x {weight:g}" if losses and len(weights) > 1 else name
        stage.restart()
        torch.manual_seed(seed)
        try:
            for candidate in _candidates(label, method, weight, stage, phase, config, seed, bottleneck, choice.notes):
                choice.consider(candidate)
        except Diverged as error:  # what was offered before may still be taken
            choice.notes.append(f"{label}: {error}")
        if stage.parts > noted:
            noted = stage.parts
            choice.notes.append(f"{label}: out of memory: steps take the tail in {noted} parts, {RECOMPUTED}")
        journal.next(len(factors))


def _candidates(
    label: str,
    method: Method,
    weight: float,
    stage: AdaptationTask,
    phase: Phase,
    config: StepsConfig,
    seed: int,
    bottleneck: int,
    notes: list[str],
) -> Iterator[CandidateModel]:
    """Yield what may be taken, one per epoch where losses are minimised; add to `notes`."""
    if method.fit:
        heads, evidence, method_notes = method.fit(stage, phase, config, seed, bottleneck)
        notes += method_notes
        yield CandidateModel(label, evidence, heads)
    elif method.losses is None:
        yield _solved(label, method, stage, phase, config, seed, bottleneck)
    else:
        yield from _trained(label, method, method.losses, weight, stage, phase, config, seed, bottleneck)


def _solved(
    label: str, method: Method, stage: AdaptationTask, phase: Phase, config: StepsConfig, seed: int, bottleneck: int
) -> CandidateModel:
    """A closed form, or a refinement: on frozen features, or on those of a tail that has learnt the source's labels."""
    if not stage.frozen and method.uses_source:
        network = new_network(stage, method.align, bottleneck)
        list(AdaptationTrainer(stage, network, phase, config, seed).learn([], config.epochs, last=True))
    features = align_features(stage, method.align)
    heads = solve_classifier(stage, features, source=method.uses_source)
    if method.refine:
        heads = distil(stage, features, method.refine(features.evidence(stage, heads)))
    return CandidateModel(label, features.evidence(stage, heads), fold_alignment(heads, features.maps[-1]))


def _trained(
    label: str,
    method: Method,
    build: BuildLosses,
    weight: float,
    stage: AdaptationTask,
    phase: Phase,
    config: StepsConfig,
    seed: int,
    bottleneck: int,
) -> Iterator[CandidateModel]:
    """Yield a candidate per epoch."""
    network = new_network(stage, method.align, bottleneck)
    course = AdaptationTrainer(stage, network, phase, config, seed)
    warm = max(1, round(method.warmup * config.epochs)) if method.warmup else 0
    list(course.learn([], warm, last=True))
    terms = build(bottleneck, len(stage.classes), network.classifier)
    for _, term in terms:
        term.to(stage.device)
    epochs = course.learn(
        [(weight * factor, term) for factor, term in terms],
        max(1, config.epochs - warm),
        source=not method.source_free,
        classifier=not method.source_free,
        pseudo=method.pseudo_labels,
    )
    for line, evidence in epochs:
        yield CandidateModel(f"{label}, epoch {line['epoch']}", evidence, network.heads(), line)


def new_network(stage: AdaptationTask, kind: str, bottleneck: int) -> AdaptationNetwork:
    """Return a network on the features of `stage`, each domain in the scaling that the closed form `kind` gives it."""
    rows = np.concatenate([stage.source, stage.domains.labelled, stage.domains.unlabelled])
    pooled = stage.pooled(rows).cpu().numpy()
    maps = fit_alignment(kind, *(pooled[side] for side in stage.sides(rows)))
    return AdaptationNetwork(maps, stage.classes, bottleneck).to(stage.device)
