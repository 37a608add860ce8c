"""The convex problem of one head's linear layer: any head's loss, an L2 value chosen by validation rows."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from transfer.data.table import Target
from transfer.heads.heads import Heads, known_rows
from transfer.probes.lbfgs import WEAKEST_STEP, LinearProblem, Preconditioner, compute_l2

LogLine = dict[str, Any]
"""Loss, accuracy and time at one L2 value, as in metrics.jsonl."""


@dataclass(frozen=True)
class ScaledRows:
    """Scaled features (N, width), and by head targets (N,) and weights (N,)."""

    x: Tensor
    targets: Mapping[str, Tensor]
    weights: Mapping[str, Tensor] = field(default_factory=dict)

    def labelled_for(self, part: Heads) -> "ScaledRows | None":
        """Return the rows with a known label of `part`; None if there are none."""
        targets = {name: self.targets[name] for name in part.specs}
        weights = {name: self.weights[name].to(self.x.device) for name in part.specs if name in self.weights}
        rows = torch.stack([known_rows(targets[name]) for name in part.specs]).any(0)
        if bool(rows.all()) and len(rows):
            return ScaledRows(self.x, targets, weights)
        if not bool(rows.any()):
            return None
        targets, weights = ({k: v[rows] for k, v in values.items()} for values in (targets, weights))
        return ScaledRows(self.x[rows], targets, weights)

    def loss(self, part: Heads, out: Mapping[str, Tensor], smoothing: float) -> Tensor:
        """Return the loss of `out`, the outputs of `part`."""
        return part.loss(out, self.targets, smoothing=smoothing, row_weights=self.weights)


class HeadProblem(LinearProblem):
    """The problem of one linear layer with `outputs`, under the loss of `part`: heads that take these for features.

    Labels of training rows are smoothed, those of validation rows are not.
    """

    def __init__(
        self,
        part: Heads,
        outputs: int,
        train: ScaledRows,
        val: ScaledRows | None,
        preconditioner: Preconditioner,
        smoothing: float,
    ) -> None:
        self.part, self.train, self.val = part, train, val
        super().__init__(train.x, outputs, lambda out: train.loss(part, part(out), smoothing), preconditioner)

    def solve_at(self, l2: float, fine: bool = False) -> LogLine:
        """Solve at an L2 value and return its log line."""
        start = time.perf_counter()
        evaluations = self.minimise(l2, fine)
        line: LogLine = {"strength": l2}
        with torch.no_grad():
            line["loss"] = float(self.loss(self.predict(self.train.x)))
            if self.val:
                out = self.part(self.predict(self.val.x))
                line |= {"val": self._accuracy(out), "val_loss": float(self.val.loss(self.part, out, 0.0))}
        return line | {"iterations": evaluations, "seconds": round(time.perf_counter() - start, 3)}

    def choose_l2(self, on_line: Callable[[LogLine], None]) -> tuple[float, float]:
        """Solve at the L2 value of lowest validation loss; return it, and the loss at the coarse tolerance."""
        losses: list[float] = []

        def solve(l2: float) -> float:
            line = self.solve_at(l2)
            on_line(line)
            losses.append(line["val_loss"])
            return losses[-1]

        chosen = compute_l2(self.search_l2(solve))
        self.minimise(chosen, fine=True)
        return chosen, min(losses)

    def choose_robust_l2(self, on_line: Callable[[LogLine], None]) -> float:
        """Solve at the strongest L2 whose accuracy is within a standard error of the best one's, and return it."""
        assert self.val
        path: list[tuple[float, float, np.ndarray]] = []
        least = math.inf
        for step in range(WEAKEST_STEP + 1):
            line = self.solve_at(compute_l2(step))
            on_line(line)
            path.append((compute_l2(step), float(np.mean(list(line["val"].values()))), self.point))
            if not line["val_loss"] < least:
                break
            least = line["val_loss"]
        best = max(accuracy for _, accuracy, _ in path)
        enough = best - math.sqrt(max(best * (1 - best), 0.0) / len(self.val.x))
        chosen, _, self.point = next(candidate for candidate in path if candidate[1] >= enough)
        self.minimise(chosen, fine=True)
        return chosen

    def _accuracy(self, out: Mapping[str, Tensor]) -> dict[str, float]:
        """Return the main score on the validation rows, by head: accuracy, R² of numbers, mAP of labels."""
        assert self.val
        report = {}
        for name, answer in self.part.predictions(out).items():
            spec, target = self.part.specs[name], self.val.targets[name]
            kind, rows = spec.head_kind, known_rows(target)
            if not kind.has_classes:
                known = Target(target.cpu().numpy(), spec.kind, spec.classes)
                report[name] = kind.main_value(kind.metrics(known, answer.cpu().numpy(), intervals=False))
            elif bool(rows.any()):
                report[name] = float((kind.decide(answer) == target)[rows].float().mean())
        return {name: round(value, 6) for name, value in report.items()}
