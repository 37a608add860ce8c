import math

import torch
from torch import nn

from transfer.heads import HeadSpec
from transfer.heads.heads import Heads
from transfer.probes.head_problem import HeadProblem, ScaledRows
from transfer.probes.lbfgs import COARSE_TOLERANCE, FINE_TOLERANCE, compute_l2

WIDTH, CLASSES = 5, 3


def draw(n: int, seed: int) -> ScaledRows:
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, WIDTH, generator=g)
    y = (x[:, :CLASSES] + torch.randn(n, CLASSES, generator=g)).argmax(1)
    return ScaledRows(x, {"object": y})


def problem(train: ScaledRows, val: ScaledRows) -> HeadProblem:
    part = Heads([HeadSpec("object", classes=tuple("abc"))], 1)
    (key,) = part.layers
    part.layers[key] = nn.Identity()
    identity = torch.eye(WIDTH)
    return HeadProblem(part, CLASSES, train, val, lambda l2: identity, 0.0)


def test_the_robust_choice_is_the_strongest_within_a_standard_error() -> None:
    train, val = draw(200, 1), draw(80, 2)
    lines: list[dict] = []
    chosen = problem(train, val).choose_robust_l2(lines.append)
    accuracies = [line["val"]["object"] for line in lines]
    enough = max(accuracies) - math.sqrt(max(accuracies) * (1 - max(accuracies)) / 80)
    assert chosen == next(line["strength"] for line, a in zip(lines, accuracies, strict=True) if a >= enough)
    assert [line["strength"] for line in lines] == [compute_l2(step) for step in range(len(lines))]
    losses = [line["val_loss"] for line in lines]
    assert losses[:-1] == sorted(losses[:-1], reverse=True), "the path continues while the loss falls"
    assert chosen >= problem(train, val).choose_l2(lambda line: None)[0], "never weaker than the choice by loss"


def test_logged_lines_are_coarse_and_the_chosen_solution_is_fine() -> None:
    """So the accuracy logged at the chosen L2 value may differ from that of the solution."""
    train, val = draw(200, 1), draw(80, 2)
    solved, lines, gradients = problem(train, val), [], {}

    def gradient(l2: float) -> float:
        return abs(solved._objective(solved.point, l2)[1]).max() / abs(solved.gradient_at_zero).max()

    def on_line(line: dict) -> None:
        lines.append(line)
        gradients[line["strength"]] = gradient(line["strength"])

    chosen, _ = solved.choose_l2(on_line)
    assert max(gradients.values()) <= COARSE_TOLERANCE
    assert gradient(chosen) <= FINE_TOLERANCE < gradients[chosen]
    logged = next(line for line in lines if line["strength"] == chosen)
    assert solved.solve_at(chosen, fine=True)["loss"] != logged["loss"]


def test_rows_without_a_label_are_left_out() -> None:
    rows, part = draw(20, 0), Heads([HeadSpec("object", classes=tuple("abc"))], 1)
    assert rows.labelled_for(part).x is rows.x
    rows.targets["object"][::2] = -1
    weighted = ScaledRows(rows.x, rows.targets, {"object": torch.arange(20.0)}).labelled_for(part)
    assert torch.equal(weighted.x, rows.x[1::2])
    assert torch.equal(weighted.weights["object"], torch.arange(20.0)[1::2])
    rows.targets["object"][:] = -1
    assert rows.labelled_for(part) is None
