"""The best of a method's candidates by a label-free rule, with the scores of all."""

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
    """A model that the rule may choose."""

    name: str  # method, loss weight, epoch
    evidence: CandidateEvidence
    heads: Heads  # for pooled features of target images
    line: dict[str, Any] = field(default_factory=dict)  # further figures for its log line
    accuracy: float | None = None  # on the target, as estimated without its labels, if it is


@dataclass
class BestCandidate:
    """The best candidate so far, and the scores and test predictions of all."""

    task: AdaptationTask
    score: Score  # larger is better
    log_line: LogLine  # called with a line for each candidate
    best: CandidateModel | None = None
    value: float = -np.inf
    backbone: dict[str, Tensor] = field(default_factory=dict)  # the best candidate's tensors that differ from the start
    scores: dict[str, float] = field(default_factory=dict)
    # predicted classes of the test rows, for the oracle's column, which is computed after all selection
    test_classes: dict[str, np.ndarray] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    lines: list[dict[str, Any]] = field(default_factory=list)

    @property
    def candidate(self) -> CandidateModel:
        """The best candidate.

        Raises
        ------
        TransferError
            There is none: training diverged.
        """
        if self.best is None:
            raise TransferError("the loss became NaN or infinite before the first epoch ended: try a lower --lr")
        return self.best

    def consider(self, candidate: CandidateModel) -> None:
        """Score a candidate, whose backbone is the task's at this moment, and retain it if it is the best."""
        value = distributed.broadcast(float(self.score(candidate.evidence)))
        value = self.scores[candidate.name] = float(value if np.isfinite(value) else -np.inf)
        self.test_classes[candidate.name] = predict_test(self.task, candidate.heads, candidate.evidence).argmax(1)
        self.lines.append({"candidate": candidate.name, "score": round(value, 6)} | candidate.line)
        self.log_line(self.lines[-1])
        if self.best is None or value > self.value:
            self.best, self.value = candidate, value
            self.backbone = {name: tensor.clone() for name, tensor in self.task.moved().items()}

    def state(self) -> dict[str, Any]:
        """Return everything to be saved, as arrays and plain values."""
        best = self.best and {
            "name": self.best.name,
            "evidence": asdict(self.best.evidence),
            "hidden": hidden_widths(self.best.heads),
            "heads": self.best.heads.state_dict(),
            "line": self.best.line,
            "accuracy": self.best.accuracy,
        }
        return {key: getattr(self, name) for key, name in SAVED_FIELDS.items()} | {"best": best}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore a saved :meth:`state` and log its candidates' lines."""
        for key, name in SAVED_FIELDS.items():
            setattr(self, name, state[key])
        best, backbone = state["best"], self.task.model.backbone
        if best:
            heads = Heads([HeadSpec("object", classes=self.task.classes)], backbone.width, hidden=best["hidden"])
            heads.load_state_dict(best["heads"])
            evidence = CandidateEvidence(**best["evidence"])
            heads = heads.to(self.task.device)
            self.best = CandidateModel(best["name"], evidence, heads, best["line"], best["accuracy"])
        for line in self.lines:
            self.log_line(line)


SAVED_FIELDS = {  # key in saved states -> field of BestCandidate
    "value": "value",
    "backbone": "backbone",
    "scores": "scores",
    "answers": "test_classes",
    "notes": "notes",
    "lines": "lines",
}


def hidden_widths(heads: Heads) -> tuple[int, ...]:
    """Return the widths of the hidden layers of `heads`."""
    return tuple(layer.out_features for layer in heads.modules() if isinstance(layer, nn.Linear))[:-1]


def format_candidate(line: dict[str, Any]) -> str:
    """Return a candidate's log line: its name, loss if any, score and seconds if any."""
    words = [f"{line['candidate']:<20}"]
    words += [f"loss {line['loss']:.4f}"] if "loss" in line else []
    words += [f"score {line['score']:.4f}"]
    words += [f"{line['seconds']:.1f} s"] if "seconds" in line else []
    return "  ".join(words)
