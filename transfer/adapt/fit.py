"""One method on one pair: its candidates, and of these the one that a label-free rule takes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from transfer import parallel
from transfer.adapt.alignment import align
from transfer.adapt.auto import auto
from transfer.adapt.config import StepsConfig
from transfer.adapt.judge.evidence import Evidence
from transfer.adapt.loop import Course, Diverged
from transfer.adapt.methods import Build, Method, find
from transfer.adapt.network import Network
from transfer.adapt.solve import aligned, answered, export, learn_from, solve
from transfer.adapt.stage import Stage
from transfer.adapt.statistics import with_target_statistics
from transfer.errors import TransferError
from transfer.freeze import Phase
from transfer.heads import Heads

OnLine = Callable[[dict[str, Any]], None]
Score = Callable[[Evidence], float]


@dataclass
class Candidate:
    """A model that a rule may take.

    Parameters
    ----------
    name : str
        What it is: method, weight, epoch.
    evidence : Evidence
        What the rule sees of it.
    heads : Heads
        Answers for pooled features of target images.
    line : dict
        What to log of it.
    """

    name: str
    evidence: Evidence
    heads: Heads
    line: dict[str, Any] = field(default_factory=dict)


@dataclass
class Choice:
    """The best of the candidates so far, and what is to be known of each.

    Parameters
    ----------
    stage : Stage
    score : callable
        The rule: larger is better.
    tell : callable
        Gets a line per candidate.
    """

    stage: Stage
    score: Score
    tell: OnLine
    best: Candidate | None = None
    value: float = -np.inf
    backbone: dict[str, Tensor] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)
    answers: dict[str, np.ndarray] = field(default_factory=dict)
    """Each candidate's classes of the test rows: for the oracle's column, which comes after all choosing."""
    notes: list[str] = field(default_factory=list)

    @property
    def taken(self) -> Candidate:
        """The best candidate.

        Raises
        ------
        TransferError
            There was none: every run diverged.
        """
        if self.best is None:
            raise TransferError("the loss became NaN or infinite before the first epoch ended: try a lower --lr")
        return self.best

    def offer(self, candidate: Candidate) -> None:
        """Judge a candidate, the stage's backbone being as it belongs to it; keep it if it is the best."""
        value = parallel.same(float(self.score(candidate.evidence)))
        value = value if np.isfinite(value) else -np.inf
        self.scores[candidate.name] = float(value)
        self.answers[candidate.name] = answered(self.stage, candidate.heads, candidate.evidence).argmax(1)
        self.tell({"candidate": candidate.name, "score": round(float(value), 6)} | candidate.line)
        if self.best is None or value > self.value:
            self.best, self.value = candidate, value
            state = self.stage.model.backbone.state_dict()
            self.backbone = {} if self.stage.frozen else {name: tensor.clone() for name, tensor in state.items()}


def fit(
    name: str,
    stage: Stage,
    phase: Phase,
    config: StepsConfig,
    choice: Choice,
    *,
    weights: tuple[float, ...] = (),
    bottleneck: int = 256,
    seed: int = 0,
) -> list[str]:
    """Offer the candidates of the method called `name` to `choice`; return what to note.

    Parameters
    ----------
    stage : Stage
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
    method = find(name)
    notes: list[str] = []
    losses = method.build is not None
    for weight in (weights if losses else ()) or (1.0,):
        label = f"{name} x {weight:g}" if losses and len(weights) > 1 else name
        stage.restart()
        torch.manual_seed(seed)
        try:
            for candidate in _candidates(label, method, weight, stage, phase, config, seed, bottleneck, notes):
                choice.offer(candidate)
        except Diverged as error:  # what was offered before may still be taken
            notes.append(f"{label}: {error}")
    return notes


def _candidates(
    label: str,
    method: Method,
    weight: float,
    stage: Stage,
    phase: Phase,
    config: StepsConfig,
    seed: int,
    bottleneck: int,
    notes: list[str],
) -> Iterator[Candidate]:
    """Yield what may be taken, one per epoch where losses are minimised; add to `notes`."""
    if label == "auto":
        heads, evidence, said = auto(stage, phase, config, seed, bottleneck)
        notes += said
        yield Candidate(label, evidence, heads)
    elif method.statistics:
        heads, evidence = with_target_statistics(stage, phase)
        yield Candidate(label, evidence, heads)
    elif method.build is None:
        yield _solved(label, method, stage, phase, config, seed, bottleneck)
    else:
        yield from _trained(label, method, method.build, weight, stage, phase, config, seed, bottleneck)


def _solved(
    label: str, method: Method, stage: Stage, phase: Phase, config: StepsConfig, seed: int, bottleneck: int
) -> Candidate:
    """A closed form, or a refinement: on frozen features, or on those of a tail that has learnt the source's labels."""
    if not stage.frozen and method.source:
        network = new_network(stage, method.align, bottleneck)
        list(Course(stage, network, phase, config, seed).learn([], config.epochs, last=True))
    features = aligned(stage, method.align)
    heads = solve(stage, features, source=method.source)
    if method.refine:
        heads = learn_from(stage, features, method.refine(features.evidence(stage, heads)))
    return Candidate(label, features.evidence(stage, heads), export(heads, features.maps[-1]))


def _trained(
    label: str,
    method: Method,
    build: Build,
    weight: float,
    stage: Stage,
    phase: Phase,
    config: StepsConfig,
    seed: int,
    bottleneck: int,
) -> Iterator[Candidate]:
    """Yield a candidate per epoch."""
    network = new_network(stage, method.align, bottleneck)
    course = Course(stage, network, phase, config, seed)
    warm = max(1, round(method.warm * config.epochs)) if method.warm else 0
    list(course.learn([], warm, last=True))
    terms = build(bottleneck, len(stage.classes), network.classifier)
    for _, term in terms:
        term.to(stage.device)
    epochs = course.learn(
        [(weight * factor, term) for factor, term in terms],
        max(1, config.epochs - warm),
        source=not method.source_free,
        classifier=not method.source_free,
        pseudo=method.pseudo,
    )
    for line, evidence in epochs:
        yield Candidate(f"{label}, epoch {line['epoch']}", evidence, network.heads(), line)


def new_network(stage: Stage, kind: str, bottleneck: int) -> Network:
    """Return a network on the features of `stage`, each domain in the scaling that the closed form `kind` gives it."""
    rows = np.concatenate([stage.source, stage.pair.labelled, stage.pair.unlabelled])
    pooled = stage.pooled(rows).cpu().numpy()
    maps = align(kind, *(pooled[side] for side in stage.sides(rows)))
    return Network(maps, stage.classes, bottleneck).to(stage.device)


def candidate_line(line: dict[str, Any]) -> str:
    """Return a candidate's line for people: its name, loss where it has one, score and seconds."""
    words = [f"{line['candidate']:<20}"]
    words += [f"loss {line['loss']:.4f}"] if "loss" in line else []
    words += [f"score {line['score']:.4f}"]
    words += [f"{line['seconds']:.1f} s"] if "seconds" in line else []
    return "  ".join(words)
