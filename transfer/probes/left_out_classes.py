"""Which unknown score suits the data: classes are left out of the probe, and each score is to find their images."""

from collections.abc import Mapping
from typing import Unpack

import numpy as np
import torch

from transfer.evaluation.uncertainty.unknown import HEAD, SCORES, UnknownScore, measure_auroc
from transfer.heads.heads import Heads
from transfer.probes.held_out import solve_without
from transfer.probes.linear import Rows, SolverOptions, layer_problems

LEFT_OUT_GROUPS = 4  # each leaves a quarter of the classes out
MIN_CLASSES = 3  # of which one is left out: a probe of the others needs two


def measure_left_out(
    heads: Heads,
    rows: Rows,
    folds: np.ndarray,
    temperatures: Mapping[str, float],
    seed: int,
    **options: Unpack[SolverOptions],
) -> dict[str, float]:
    """Return of each of `SCORES` how well it distinguishes left-out classes from known ones: mean AUROC over groups.

    For each group of classes, the linear probe is solved without it and without one fold of the other classes, whose
    images it has to rank below those of the group. Only training rows have a part in that.

    Parameters
    ----------
    heads : Heads
        Linear ones; give a copy.
    rows : (Tensor, mapping of str to Tensor)
        Features (N, width), and targets (N,) by head.
    folds : ndarray of int64, shape (N,)
    temperatures : mapping of str to float
        By head; logits are divided by them.
    seed : int
        Draws the groups.
    **options
        As of :func:`transfer.probes.held_out.cross_fit`.

    Returns
    -------
    dict of str to float
        Empty with fewer than `MIN_CLASSES` classes, or if no group has images to compare.
    """
    layer = next(found for found in layer_problems(heads, rows, **options) if HEAD in found.part.specs)
    known = layer.known_rows(rows[1])
    features, labels = rows[0][known].to(layer.train.x.device), layer.train.targets[HEAD]
    fold_of = torch.from_numpy(folds)[known].to(labels.device)
    present = labels[labels >= 0].unique().cpu().numpy()
    if len(present) < MIN_CLASSES:
        return {}
    found: dict[str, list[float]] = {name: [] for name in SCORES}
    order = np.random.default_rng(seed).permutation(present)
    groups = min(LEFT_OUT_GROUPS, len(order))
    for number in range(groups):
        unknown = torch.isin(labels, torch.from_numpy(order[number::groups]).to(labels.device))
        held_out = ~unknown & (labels >= 0) & (fold_of == fold_of.unique()[number % len(fold_of.unique())])
        fitted = ~unknown & ~held_out & (labels >= 0)
        if not (bool(unknown.any()) and bool(held_out.any()) and len(labels[fitted].unique()) > 1):
            continue
        problem = solve_without(layer, unknown | held_out, fine=False)
        with torch.no_grad():
            outputs = layer.part(problem.predict(layer.train.x) / temperatures.get(layer.name, 1.0))[HEAD]
            outputs = outputs[:, labels[fitted].unique()]
        for name in SCORES:
            score = UnknownScore.fitted(name, features[fitted], labels[fitted])
            parts = [score.compute(features[rows], outputs[rows]).cpu().numpy() for rows in (held_out, unknown)]
            found[name].append(measure_auroc(*parts))
    return {name: round(float(np.mean(values)), 4) for name, values in found.items() if values}
