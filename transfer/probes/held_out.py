"""Predictions for training rows by heads that were trained without them (cross-fitting), so that no image is spared."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor

from transfer.backbones.variants import AllStagesBackbone
from transfer.heads.heads import Heads, known_rows
from transfer.model import TransferModel
from transfer.probes.head_problem import HeadProblem
from transfer.probes.lbfgs import DEFAULT_PROBE_L2
from transfer.probes.linear import HeadLayer, Rows, SolverOptions, layer_problems

CROSS_FITTED_FOLDS = 5
MAX_CROSS_FITTED = 2500  # rows; of more, a fifth to validate by is enough, and solving all folds takes seconds
CROSS_FITTED, VALIDATED = f"cross-conformal, {CROSS_FITTED_FOLDS} folds", "split-conformal, validation images"


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Predictions by head for the `rows` of a table, by heads that were not trained on them; `method` says how."""

    rows: np.ndarray
    predictions: dict[str, np.ndarray]
    method: str


def draw_folds(labels: np.ndarray, seed: int, folds: int = CROSS_FITTED_FOLDS) -> np.ndarray:
    """Return the fold of each row, int64 (N,) from 0: random, and as even as possible within each of `labels` (N,)."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]  # by class, at random within it
    found = np.empty(len(labels), np.int64)
    found[order] = np.arange(len(labels)) % folds
    return found


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
) -> dict[str, np.ndarray]:
    """Return the predictions for `rows`, each row's by a linear probe that was solved on the rows of the other folds.

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
    dict of str to ndarray
        By head, as :meth:`transfer.heads.heads.Heads.predictions` returns them; NaN for rows without a label of the
        head, or of its joint head.
    """
    found: dict[str, np.ndarray] = {}
    for layer in layer_problems(heads, rows, **options):
        known = torch.stack([known_rows(rows[1][name]) for name in layer.part.specs]).any(0).cpu()
        outputs = _solve_folds(layer, torch.from_numpy(folds)[known].to(layer.train.x.device))
        with torch.no_grad():
            predictions = layer.part.predictions(layer.part(outputs / temperatures.get(layer.name, 1.0)))
        for name in layer.part.specs:
            values = predictions[name].double().cpu()
            found[name] = np.full((len(known), *values.shape[1:]), np.nan)
            found[name][known.numpy()] = values.numpy()
    return found


def _solve_folds(layer: HeadLayer, folds: Tensor) -> Tensor:
    """Return the outputs (N, outputs) of `layer` for its training rows, each row's by the probe without its fold.

    All probes share the preconditioner, which affects only how long a solution takes. Each starts from zero: started
    from the final solution, which has seen the held-out rows, it would stop close to it.
    """
    train, outputs = layer.train, layer.linear.out_features
    held_out = torch.empty(len(folds), outputs, device=train.x.device)
    for fold in folds.unique().tolist():
        ones = torch.ones(len(folds), device=train.x.device)
        weights = {name: train.weights.get(name, ones) * (folds != fold) for name in layer.part.specs}
        others = replace(train, weights=weights)
        smoothing = layer.options.get("smoothing", 0.0)
        problem = HeadProblem(layer.part, outputs, others, None, layer.preconditioner, smoothing)
        problem.minimise(DEFAULT_PROBE_L2 if layer.fixed is None else layer.fixed, fine=True)
        with torch.no_grad():
            held_out[folds == fold] = problem.predict(train.x[folds == fold])
    return held_out
