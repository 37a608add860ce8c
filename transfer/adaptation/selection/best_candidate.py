"""Of a method's candidates the one that a label-free rule takes, and what is to be known of the others."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from torch import Tensor, nn

from transfer.adaptation.closed_form.classifier import predict_test
from transfer.adaptation.selection.evidence import CandidateEvidence
from transfer.adaptation.task import AdaptationTask
from transfer.errors import TransferError
from transfer.heads import HeadSpec
from transfer.heads.heads import Heads
from transfer.runtime import distributed

LogLine = Callable[[dict[str, Any]], None]
Score = Callable[[CandidateEvidence], float]


@dataclass
class CandidateModel:
    """A model that a rule may take.

    Parameters
    ----------
    name : str
        What it is: method, weight, epoch.
    evidence : CandidateEvidence
        What the rule sees of it.
    heads : Heads
        Answers for pooled features of target images.
    line : dict
        What to log of it.
    """

    name: str
    evidence: CandidateEvidence
    heads: Heads
    line: dict[str, Any] = field(default_factory=dict)


@dataclass
class BestCandidate:
    """The best of the candidates so far, and what is to be known of each.

    Parameters
    ----------
    stage : AdaptationTask
    score : callable
        The rule: larger is better.
    tell : callable
        Gets a line per candidate.
    """

    stage: AdaptationTask
    score: Score
    tell: LogLine
    best: CandidateModel | None = None
    value: float = -np.inf
    backbone: dict[str, Tensor] = field(default_factory=dict)
    """What of the best one's backbone is not as it was at first."""
    scores: dict[str, float] = field(default_factory=dict)
    answers: dict[str, np.ndarray] = field(default_factory=dict)
    """Each candidate's classes of the test rows: for the oracle's column, which comes after all choosing."""
    notes: list[str] = field(default_factory=list)
    lines: list[dict[str, Any]] = field(default_factory=list)

    @property
    def candidate(self) -> CandidateModel:
        """The best candidate.

        Raises
        ------
        TransferError
            There was none: every run diverged.
        """
        if self.best is None:
            raise TransferError("the loss became NaN or infinite before the first epoch ended: try a lower --lr")
        return self.best

    def consider(self, candidate: CandidateModel) -> None:
        """Judge a candidate, the stage's backbone being as it belongs to it; keep it if it is the best."""
        value = distributed.broadcast(float(self.score(candidate.evidence)))
        value = value if np.isfinite(value) else -np.inf
        self.scores[candidate.name] = float(value)
        self.answers[candidate.name] = predict_test(self.stage, candidate.heads, candidate.evidence).argmax(1)
        self.lines.append({"candidate": candidate.name, "score": round(float(value), 6)} | candidate.line)
        self.tell(self.lines[-1])
        if self.best is None or value > self.value:
            self.best, self.value = candidate, value
            self.backbone = {name: tensor.clone() for name, tensor in self.stage.moved().items()}

    def state(self) -> dict[str, Any]:
        """Return all of this as arrays and plain values."""
        best = self.best and {
            "name": self.best.name,
            "evidence": asdict(self.best.evidence),
            "hidden": hidden_widths(self.best.heads),
            "heads": self.best.heads.state_dict(),
            "line": self.best.line,
        }
        return {name: getattr(self, name) for name in KEPT} | {"best": best}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore a saved :meth:`state` and log its candidates' lines."""
        for name in KEPT:
            setattr(self, name, state[name])
        best, backbone = state["best"], self.stage.model.backbone
        if best:
            heads = Heads([HeadSpec("object", classes=self.stage.classes)], backbone.width, hidden=best["hidden"])
            heads.load_state_dict(best["heads"])
            evidence = CandidateEvidence(**best["evidence"])
            self.best = CandidateModel(best["name"], evidence, heads.to(self.stage.device), best["line"])
        for line in self.lines:
            self.tell(line)


KEPT = ("value", "backbone", "scores", "answers", "notes", "lines")


def hidden_widths(heads: Heads) -> tuple[int, ...]:
    """Return the widths of the hidden layers of `heads`."""
    return tuple(layer.out_features for layer in heads.modules() if isinstance(layer, nn.Linear))[:-1]


def format_candidate(line: dict[str, Any]) -> str:
    """Return a candidate's line for people: its name, loss where it has one, score and seconds."""
    words = [f"{line['candidate']:<20}"]
    words += [f"loss {line['loss']:.4f}"] if "loss" in line else []
    words += [f"score {line['score']:.4f}"]
    words += [f"{line['seconds']:.1f} s"] if "seconds" in line else []
    return "  ".join(words)
