"""Predictions for training rows by heads that were trained without them (cross-fitting)."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor

from transfer.backbones.variants import AllStagesBackbone
from transfer.heads.heads import Heads
from transfer.model import TransferModel
from transfer.probes.head_problem import HeadProblem
from transfer.probes.lbfgs import DEFAULT_PROBE_L2
from transfer.probes.linear import HeadLayer, Rows, SolverOptions, layer_problems


def find_solution(model: TransferModel, choices: Sequence[Any]) -> dict[str, float] | None:
    """Return the L2 value of each head where a fit's `choices` are those of one linear probe, else None.

    After LP-FT the best weights can be those of its probe, but the present cut is below: None as well.
    """
    solved = len(choices) == 1 and isinstance(choices[0], dict) and model.cut == len(model.backbone.stages)
    return choices[0] if solved and not isinstance(model.backbone, AllStagesBackbone) else None


def cross_fit(
    heads: Heads,
    rows: Rows,
    folds: np.ndarray,
    temperatures: Mapping[str, float],
    **options: Unpack[SolverOptions],
) -> dict[str, Tensor]:
    """Return the outputs for `rows`, each row's by a linear probe that was solved on the rows of the other folds.

    Parameters
    ----------
    heads : Heads
        Linear ones; they get the last probe's weights: give a copy.
    rows : (Tensor, mapping of str to Tensor)
        Features (N, width), and targets (N,) by head.
    folds : ndarray of int64, shape (N,)
    temperatures : mapping of str to float
        By head; logits are divided by them. A joint head is called ``"joint"``.
    **options
        Of :func:`transfer.probes.linear.solve_linear_probe`; ``fixed_l2`` has the L2 value of each head.

    Returns
    -------
    dict of str to Tensor
        The outputs of each head for `rows`, as :meth:`transfer.heads.heads.Heads.forward` returns them, without
        ``"joint"``; NaN for rows without a label of the head, or of its joint head.
    """
    found: dict[str, Tensor] = {}
    for layer in layer_problems(heads, rows, **options):
        known = layer.known_rows(rows[1])
        outputs = _solve_folds(layer, torch.from_numpy(folds)[known].to(layer.train.x.device))
        with torch.no_grad():
            parts = layer.part(outputs / temperatures.get(layer.name, 1.0))
        for name in layer.part.specs:
            values = parts[name].cpu().double()  # not every device has float64
            found[name] = values.new_full((len(known), *values.shape[1:]), torch.nan)
            found[name][known] = values
    return found


def solve_without(layer: HeadLayer, left_out: Tensor, *, fine: bool = True) -> HeadProblem:
    """Return the problem of `layer`, solved without the training rows `left_out`, bool (N,).

    All such problems share the preconditioner, which affects only how long a solution takes. Each starts from zero:
    started from the final solution, which has seen the held-out rows, it would stop close to it.
    """
    train = layer.train
    ones = torch.ones(len(left_out), device=train.x.device)
    weights = {name: train.weights.get(name, ones) * ~left_out for name in layer.part.specs}
    problem = replace(layer, train=replace(train, weights=weights), val=None).problem()
    problem.minimise(DEFAULT_PROBE_L2 if layer.fixed is None else layer.fixed, fine=fine)
    return problem


def _solve_folds(layer: HeadLayer, folds: Tensor) -> Tensor:
    """Return the outputs (N, outputs) of `layer` for its training rows, each row's by the probe without its fold."""
    x = layer.train.x
    held_out = torch.empty(len(folds), layer.linear.out_features, device=x.device)
    for fold in folds.unique().tolist():
        problem = solve_without(layer, folds == fold)
        with torch.no_grad():
            held_out[folds == fold] = problem.predict(x[folds == fold])
    return held_out
