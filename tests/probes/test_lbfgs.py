import math
import signal

import numpy as np
import pytest
import torch
from torch import nn

from transfer.heads.heads import Heads, HeadSpec
from transfer.probes.lbfgs import Problem, Scaled, strength_at
from transfer.runtime import signals

WIDTH, CLASSES = 5, 3


def rows(n: int, seed: int) -> Scaled:
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, WIDTH, generator=g)
    y = (x[:, :CLASSES] + torch.randn(n, CLASSES, generator=g)).argmax(1)
    return Scaled(x, {"object": y})


def problem(train: Scaled, val: Scaled | None = None) -> Problem:
    part = Heads([HeadSpec("object", classes=tuple("abc"))], 1)
    (key,) = part.layers
    part.layers[key] = nn.Identity()
    return Problem(part, CLASSES, train, val, torch.eye(WIDTH), 0.0)


def objective(weight: np.ndarray, bias: np.ndarray, some: Scaled, strength: float) -> float:
    """Mean cross-entropy plus half the strength times the squared weights, row by row."""
    total = 0.0
    for x, y in zip(some.x.double().numpy(), some.targets["object"].tolist(), strict=True):
        logits = [float(w @ x) + float(b) for w, b in zip(weight, bias, strict=True)]
        total += math.log(sum(math.exp(v) for v in logits)) - logits[y]
    return total / len(some.x) + strength / 2 * float((weight**2).sum())


@pytest.mark.parametrize("strength", [1.0, 0.03])
def test_what_is_solved_has_no_better_neighbour(strength: float) -> None:
    train = rows(60, 0)
    one = problem(train)
    one.at(strength, 1e-5)
    weight, bias = (part.double().numpy() for part in one.layer())
    least = objective(weight, bias, train, strength)
    rng = np.random.default_rng(0)
    for size in (0.3, 0.05):
        for _ in range(20):
            moved = weight + size * rng.normal(size=weight.shape), bias + size * rng.normal(size=bias.shape)
            assert objective(*moved, train, strength) > least


def test_the_robust_choice_is_the_strongest_within_a_standard_error() -> None:
    train, val = rows(200, 1), rows(80, 2)
    lines: list[dict] = []
    chosen = problem(train, val).choose_robust(lines.append)
    right = [line["val"]["object"] for line in lines]
    enough = max(right) - math.sqrt(max(right) * (1 - max(right)) / 80)
    expected = next(line["strength"] for line, some in zip(lines, right, strict=True) if some >= enough)
    assert chosen == expected
    strengths = [line["strength"] for line in lines]
    assert strengths == [strength_at(step) for step in range(len(lines))]
    losses = [line["val_loss"] for line in lines]
    assert losses[:-1] == sorted(losses[:-1], reverse=True), "the path goes on while the loss falls"
    assert chosen >= problem(train, val).choose(lambda line: None), "never weaker than what the loss would take"


def test_a_solve_that_takes_long_can_be_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    solved, evaluated = problem(rows(60, 0)), []
    whole = Problem._objective

    def evaluate(self: Problem, point: np.ndarray, strength: float) -> tuple[float, np.ndarray]:
        evaluated.append(strength)
        if len(evaluated) == 3:
            signal.raise_signal(signal.SIGINT)
        return whole(self, point, strength)

    monkeypatch.setattr(Problem, "_objective", evaluate)
    with pytest.raises(signals.Stopped), signals.stoppable():
        solved.at(0.01, 1e-6)
    assert len(evaluated) == 3
