"""Predictions for training rows by heads that were trained without them (cross-fitting), so that no image is spared."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor

from transfer.backbones.variants import AllStagesBackbone
from transfer.evaluation.predictions import predict_rows
from transfer.evaluation.uncertainty.record import HeldOut
from transfer.feature_cache import Feed
from transfer.heads.heads import Heads, known_rows
from transfer.model import TransferModel
from transfer.probes.head_problem import HeadProblem
from transfer.probes.lbfgs import DEFAULT_PROBE_L2
from transfer.probes.linear import HeadLayer, Rows, SolverOptions, layer_problems

CROSS_FITTED_FOLDS = 5
MAX_CROSS_FITTED = 2500  # rows; of more, a fifth to validate by is enough, and solving all folds takes seconds
CROSS_FITTED, VALIDATED = f"cross-conformal, {CROSS_FITTED_FOLDS} folds", "split-conformal, validation images"


@dataclass(frozen=True, eq=False)
class LabelledRows:
    """The `train` and `val` rows that a model was trained on and chosen by.

    `labels` and `weights` are by head those of all rows of the model's `feed`; `weights` have the heads whose rows are
    weighted. `smoothing` is that of the labels.
    """

    feed: Feed
    labels: Mapping[str, Tensor]
    train: np.ndarray
    val: np.ndarray
    weights: Mapping[str, Tensor] = field(default_factory=dict)
    smoothing: float = 0.0


def predict_held_out(
    data: LabelledRows, solution: Mapping[str, float] | None, temperatures: Mapping[str, float], seed: int
) -> HeldOut:
    """Return predictions for images that a model was not trained on, from which prediction sets are made.

    Few rows are predicted by linear probes of their own with the L2 values `solution`, see :func:`cross_fit`. Of many,
    and without a `solution` (:func:`find_solution`), the model predicts the validation rows.
    """
    rows = np.union1d(data.train, data.val)
    if solution is None or len(rows) > MAX_CROSS_FITTED:
        found = predict_rows(data.feed.model, data.feed, data.val, data.labels)[0] if len(data.val) else {}
        return HeldOut(data.val, found, VALIDATED)
    targets, weights = (
        {name: values[torch.from_numpy(rows)] for name, values in by_head.items()}
        for by_head in (data.labels, data.weights)
    )
    by = targets.get("object", next(iter(targets.values())))  # each fold has its share of each of these
    found = cross_fit(
        copy.deepcopy(data.feed.model.heads),
        (data.feed.load_all_views(rows)[1], targets),
        draw_folds(by.cpu().numpy(), seed),
        temperatures,
        smoothing=data.smoothing,
        row_weights=weights or None,
        fixed_l2=solution,
    )
    return HeldOut(rows, found, CROSS_FITTED)


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
