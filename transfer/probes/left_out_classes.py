"""Which unknown score suits the data: classes are left out of the probe, and each score is to find their images."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Unpack

import numpy as np
import torch
from torch import Tensor

from transfer.evaluation.uncertainty.unknown import HEAD, UNKNOWN_SCORES, UnknownScore, measure_auroc
from transfer.heads.heads import PAIR, Heads, split_by_layer
from transfer.probes.linear import Rows, SolverOptions, fits_one_core, solve_linear_probe
from transfer.probes.side_by_side import run_side_by_side

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
    """Return how well each of `UNKNOWN_SCORES` distinguishes left-out classes from known ones: mean AUROC over groups.

    For each group of classes, the linear probe is solved without it and without one fold of the other classes, whose
    images it has to rank below those of the group. It is solved as if no other row existed: even an output without
    images, or features centred on all classes, would say something about those that are left out. The coarse tolerance
    changes an AUROC by less than 0.006 and chose the same score (Office-31, flowers12, NEU-CLS, two seeds each).

    Parameters
    ----------
    heads : Heads
        Linear ones, as of the run; their weights have no part in this.
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
    labels = rows[1][HEAD].cpu()
    present = labels[labels >= 0].unique().numpy()
    if len(present) < MIN_CLASSES:
        return {}
    order = np.random.default_rng(seed).permutation(present)
    groups = min(LEFT_OUT_GROUPS, len(order))

    def measure(number: int) -> dict[str, float]:
        unknown = torch.isin(labels, torch.from_numpy(order[number::groups]))
        held_out = ~unknown & (labels >= 0) & torch.from_numpy(folds == number % (folds.max() + 1))
        fitted = ~unknown & ~held_out & (labels >= 0)
        if not (bool(unknown.any()) and bool(held_out.any()) and len(labels[fitted].unique()) > 1):
            return {}
        logits = _predict_without(heads, rows, fitted, temperatures, options)
        found = {}
        for name in UNKNOWN_SCORES:
            score = UnknownScore.fitted(name, rows[0][fitted], labels[fitted])
            parts = [score.compute(rows[0][part], logits[part]).cpu().numpy() for part in (held_out, unknown)]
            found[name] = measure_auroc(*parts)
        return found

    jobs = [partial(measure, number) for number in range(groups)]
    found = run_side_by_side(jobs) if fits_one_core(heads, rows[0]) else [job() for job in jobs]
    found = [aurocs for aurocs in found if aurocs]
    return {name: round(float(np.mean([a[name] for a in found])), 4) for name in UNKNOWN_SCORES} if found else {}


def _predict_without(
    heads: Heads, rows: Rows, fitted: Tensor, temperatures: Mapping[str, float], options: SolverOptions
) -> Tensor:
    """Return the logits (N, classes) of all rows by a probe of those `fitted`, bool (N,), and their classes alone."""
    features, targets = rows
    names = PAIR if heads.joint else (HEAD,)
    classes, places = targets[HEAD].cpu()[fitted].unique(return_inverse=True)
    spec = heads.specs[HEAD]
    specs = [replace(spec, classes=tuple(spec.classes[k] for k in classes.tolist()))]
    specs += [heads.specs[name] for name in names[1:]]
    probe = Heads(specs, features.shape[1], compose="joint" if heads.joint else "dual").to(features.device)
    inner = {name: targets[name][fitted] for name in names} | {HEAD: places.to(features.device)}
    weights = {name: values[fitted] for name, values in (options.get("row_weights") or {}).items() if name in names}
    solve_linear_probe(probe, (features[fitted], inner), fine=False, **(options | {"row_weights": weights or None}))
    with torch.no_grad():
        outputs = probe.layer_outputs(features)
        name = "joint" if heads.joint else HEAD
        outputs[name] = outputs[name] / temperatures.get(name, 1.0)
        return split_by_layer(probe)[name](outputs[name])[HEAD]
