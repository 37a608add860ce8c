"""Predictions for labelled images by probes that had neither their labels nor what was propagated from them."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from transfer.evaluation.temperature import apply_temperatures
from transfer.feature_cache import Feed
from transfer.probes.held_out_images import CrossFitted
from transfer.probes.linear import solve_linear_probe
from transfer.probes.side_by_side import run_side_by_side

MAX_PROPAGATED, MAX_PROPAGATED_OUTPUTS = 2500, 250_000  # rows, and rows x classes, so that all folds take seconds
MIN_HELD_OUT = 10  # labels; of fewer, validation images say as much


@dataclass(frozen=True)
class PropagatedRows:
    """What a probe is solved on: `rows` of a feed; labels and weights, by head, are those of all its rows."""

    rows: np.ndarray
    labels: Mapping[str, Tensor]
    weights: Mapping[str, Tensor]


def predict_held_out_labels(
    feed: Feed,
    rows: np.ndarray,
    folds: np.ndarray,
    propagate: Callable[[np.ndarray], PropagatedRows],
    solution: Mapping[str, float],
    temperatures: Mapping[str, float],
    smoothing: float = 0.0,
) -> CrossFitted | None:
    """Return predictions for labelled rows, each by a probe without the labels of its fold.

    Parameters
    ----------
    feed : Feed
        Of a model whose heads are linear, on a frozen backbone. The model is not changed.
    rows : ndarray of int64, shape (N,)
        Training and validation rows, with and without labels.
    folds : ndarray of int64, shape (N,)
        The fold in which a labelled row is held out, from 0; -1 for rows that never are.
    propagate : callable
        Takes the rows that a fold leaves, and returns them with propagated labels.
    solution, temperatures : mapping of str to float
        L2 value and temperature of each head.
    smoothing : float
        Of labels.

    Returns
    -------
    CrossFitted or None
        None where it would take too long, or where fewer than `MIN_HELD_OUT` labels can be held out.
    """
    classes = max(len(spec.classes) or 1 for spec in feed.model.heads.specs.values())
    held = folds >= 0
    too_many = len(rows) > min(MAX_PROPAGATED, MAX_PROPAGATED_OUTPUTS // classes)
    if too_many or held.sum() < MIN_HELD_OUT or len(np.unique(folds[held])) < 2:
        return None
    features = feed.load_all_views(rows)[1]

    def predict(tested: np.ndarray, known: PropagatedRows) -> dict[str, np.ndarray]:
        index, places = torch.from_numpy(known.rows), torch.from_numpy(np.searchsorted(rows, known.rows))
        labels, weights = ({name: v[index] for name, v in part.items()} for part in (known.labels, known.weights))
        heads = copy.deepcopy(feed.model.heads)
        options = {"smoothing": smoothing, "row_weights": weights or None, "fixed_l2": solution}
        solve_linear_probe(heads, (features[places], labels), fine=False, **options)  # type: ignore[arg-type]
        apply_temperatures(heads, temperatures)
        with torch.no_grad():
            predictions = heads.predictions(heads(features[torch.from_numpy(tested)]))
        return {name: values.cpu().double().numpy() for name, values in predictions.items()}

    parts = [folds == fold for fold in np.unique(folds[held])]
    found: dict[str, np.ndarray] = {}
    jobs = [partial(predict, tested, propagate(rows[~tested])) for tested in parts]
    for tested, predictions in zip(parts, run_side_by_side(jobs), strict=True):
        for name, values in predictions.items():
            found.setdefault(name, np.full((len(rows), *values.shape[1:]), np.nan))[tested] = values
    return CrossFitted(rows[held], folds[held], {name: values[held] for name, values in found.items()})
