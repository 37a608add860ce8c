"""One layer's convex problem: solved at a strength of regularisation, from where the last strength left it."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor
from tqdm import tqdm

from transfer.heads import metrics
from transfer.heads.heads import Heads, known
from transfer.runtime import distributed, signals

Line = dict[str, Any]
"""How solving at one strength went, as in metrics.jsonl."""

START, STRONGEST, WEAKEST = 3, -6, 10  # strengths are 10^(-step / 2)
ROUGH, FINE = 5e-3, 1e-3  # gradient at the solution, of that at zero: while choosing, and of what is kept
HISTORY, EVALUATIONS, ROUNDING = 5, 1000, 1e-9  # L-BFGS: pairs kept; at most; a smaller gain is none


@dataclass(frozen=True)
class Scaled:
    """Scaled features (N, width), and by head targets (N,) and weights (N,)."""

    x: Tensor
    targets: Mapping[str, Tensor]
    weights: Mapping[str, Tensor] = field(default_factory=dict)

    def of(self, part: Heads) -> "Scaled | None":
        """Return the rows that know a label of `part`, if any does."""
        targets = {name: self.targets[name] for name in part.specs}
        weights = {name: self.weights[name].to(self.x.device) for name in part.specs if name in self.weights}
        rows = torch.stack([known(spec, targets[name]) for name, spec in part.specs.items()]).any(0)
        if bool(rows.all()) and len(rows):
            return Scaled(self.x, targets, weights)
        if not bool(rows.any()):
            return None
        return Scaled(self.x[rows], {k: v[rows] for k, v in targets.items()}, {k: v[rows] for k, v in weights.items()})


class Problem:
    """One layer's: what it learns from and is judged by, and its weights so far."""

    def __init__(
        self, part: Heads, outputs: int, train: Scaled, val: Scaled | None, root: Tensor, smoothing: float
    ) -> None:
        self.part, self.outputs, self.train, self.val = part, outputs, train, val
        self.root, self.smoothing = root, smoothing
        self.point = np.zeros(outputs * (len(root) + 1))  # W R⁻¹, then the biases
        self.slope = float(np.abs(self._objective(self.point, 0.0)[1]).max())

    def choose(self, tell: Callable[[Line], None]) -> float:
        """Solve at the strength of lowest validation loss, and return it.

        Each solution starts the next: towards weaker strengths while that helps, or else towards stronger ones.
        """

        def loss(step: int) -> float:
            line = self.at(strength_at(step), ROUGH)
            tell(line)
            return line["val_loss"]

        best, least, kept = START, loss(START), self.point
        for direction, end in ((1, WEAKEST), (-1, STRONGEST)):
            for step in range(START + direction, end + direction, direction):
                value = loss(step)
                if not value < least:
                    break
                best, least, kept = step, value, self.point
            self.point = kept
            if best != START:
                break
        self._minimise(strength_at(best), FINE)
        return strength_at(best)

    def choose_robust(self, tell: Callable[[Line], None]) -> float:
        """Solve at the strongest strength that does about as well as the best, and return it."""
        assert self.val
        path: list[tuple[float, float, np.ndarray]] = []
        least = math.inf
        for step in range(WEAKEST + 1):
            line = self.at(strength_at(step), ROUGH)
            tell(line)
            path.append((strength_at(step), float(np.mean(list(line["val"].values()))), self.point))
            if not line["val_loss"] < least:
                break
            least = line["val_loss"]
        best = max(accuracy for _, accuracy, _ in path)
        enough = best - math.sqrt(max(best * (1 - best), 0.0) / len(self.val.x))
        strength, _, self.point = next(place for place in path if place[1] >= enough)
        self._minimise(strength, FINE)
        return strength

    def at(self, strength: float, tolerance: float) -> Line:
        """Solve from the present weights on; return how it went."""
        began = time.perf_counter()
        evaluations = self._minimise(strength, tolerance)
        line: Line = {"strength": strength}
        with torch.no_grad():
            line["loss"] = float(self._loss(self._out(self.train), self.train, self.smoothing))
            if self.val:
                out = self._out(self.val)
                line |= {"val": self._accuracy(out), "val_loss": float(self._loss(out, self.val, 0.0))}
        return line | {"iterations": evaluations, "seconds": round(time.perf_counter() - began, 3)}

    def layer(self) -> tuple[Tensor, Tensor]:
        """Return weight (outputs, width) and bias (outputs,) on scaled features."""
        inner, bias = self._unpacked(self.point)
        return inner @ self.root, bias

    def _minimise(self, strength: float, tolerance: float) -> int:
        shown: dict[str, Any] = {"desc": f"solving at {strength:.2g}", "unit": "pass", "disable": None, "delay": 2}
        with tqdm(leave=False, **shown) as bar:

            def objective(point: np.ndarray) -> tuple[float, np.ndarray]:
                if distributed.world() == 1:
                    signals.check()  # nothing is lost but this solution, which is computed again
                bar.update()
                return self._objective(point, strength)

            found = minimize(
                objective,
                self.point,
                jac=True,
                method="L-BFGS-B",
                options={
                    "gtol": tolerance * self.slope,
                    "ftol": ROUNDING,
                    "maxcor": HISTORY,
                    "maxiter": EVALUATIONS,
                    "maxfun": EVALUATIONS,
                },
            )
        self.point = found.x
        return int(found.nfev)

    def _objective(self, point: np.ndarray, strength: float) -> tuple[float, np.ndarray]:
        inner, bias = (part.requires_grad_() for part in self._unpacked(point))
        with torch.enable_grad():
            weight = inner @ self.root
            out = self.part(_linear(self.train.x, weight, bias))
            total = self._loss(out, self.train, self.smoothing) + strength / 2 * weight.square().sum()
            slope = torch.autograd.grad(total, (inner, bias))
        return float(total.detach()), torch.cat([part.flatten() for part in slope]).cpu().double().numpy()

    def _unpacked(self, point: np.ndarray) -> tuple[Tensor, Tensor]:
        inner, bias = torch.from_numpy(point).float().to(self.root.device).tensor_split([-self.outputs])
        return inner.view(self.outputs, -1), bias

    def _out(self, rows: Scaled) -> dict[str, Tensor]:
        return self.part(_linear(rows.x, *self.layer()))

    def _loss(self, out: Mapping[str, Tensor], rows: Scaled, smoothing: float) -> Tensor:
        return self.part.loss(out, rows.targets, smoothing=smoothing, row_weights=rows.weights)

    def _accuracy(self, out: Mapping[str, Tensor]) -> dict[str, float]:
        """Return accuracy (R² for regression) on the validation rows, by head."""
        assert self.val
        report = {}
        for name, answer in self.part.answers(out).items():
            spec, target = self.part.specs[name], self.val.targets[name]
            rows = known(spec, target)
            if spec.kind == "regression":
                report[name] = metrics.regression_metrics(target.cpu().numpy(), answer.cpu().numpy())["r2"]
            elif bool(rows.any()):
                decided = answer.argmax(1) if spec.kind == "softmax" else answer > 0.5
                report[name] = float((decided == target)[rows].float().mean())
        return {name: round(value, 6) for name, value in report.items()}


def _linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    # few outputs, many rows: this way round the product takes half as long as x @ weight.T
    return (weight @ x.T).T + bias


def strength_at(step: int) -> float:
    """Return the strength that is `step` half decades below 1."""
    return 10.0 ** (-step / 2)
