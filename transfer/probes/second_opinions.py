"""Fit what :mod:`transfer.evaluation.label_free` needs beside held-out predictions: second opinions."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from transfer.evaluation.label_free.second_opinion import SecondOpinion, standardise
from transfer.evaluation.predictions import iterate_outputs
from transfer.feature_cache import Feed
from transfer.heads import HeadSpec
from transfer.heads.heads import Heads
from transfer.heads.kind import ClassHeadKind
from transfer.probes.lbfgs import DEFAULT_PROBE_L2
from transfer.probes.linear import solve_linear_probe

MAX_FITTED = 2000  # rows; a trained network computes their features again
WITHOUT = ("domain",)  # heads whose classes are no property of an image of another domain


def fit_second_opinions(
    feed: Feed, rows: np.ndarray, labels: Mapping[str, Tensor], l2: Mapping[str, float], seed: int
) -> dict[str, SecondOpinion]:
    """Return a second opinion for each head of classes, fitted to at most `MAX_FITTED` of `rows`.

    Parameters
    ----------
    feed : Feed
    rows : ndarray of int64, shape (N,)
        Rows that the model was trained on.
    labels : mapping of str to Tensor
        Of all rows of `feed`, by head; -1 where unknown.
    l2 : mapping of str to float
        L2 value of a head's probe (default: `DEFAULT_PROBE_L2`).
    seed : int
        Draws the rows.
    """
    model = feed.model
    specs = {n: s for n, s in model.heads.specs.items() if n not in WITHOUT and isinstance(s.head_kind, ClassHeadKind)}
    if not specs or not len(rows):
        return {}
    rows = np.sort(np.random.default_rng(seed).permutation(rows)[:MAX_FITTED])
    model.eval()
    with torch.inference_mode():
        features = torch.cat([x.float().cpu() for x, _ in iterate_outputs(model, feed, rows)])
    found = {}
    for name, spec in specs.items():
        targets = labels[name][torch.from_numpy(rows)].cpu()
        known = targets >= 0
        if len(targets[known].unique()) > 1 and bool(features.isfinite().all()):
            value = l2.get(name, l2.get("joint", DEFAULT_PROBE_L2))
            found[name] = fit_second_opinion(features[known], targets[known].long(), len(spec.classes), value)
    return found


def fit_second_opinion(features: Tensor, labels: Tensor, classes: int, l2: float = DEFAULT_PROBE_L2) -> SecondOpinion:
    """Return a probe, solved at `l2`, and the centroids of `features` (N, F), standardised, with `labels` (N,)."""
    x = torch.from_numpy(standardise(features.numpy()))
    name = "second"
    heads = Heads([HeadSpec(name, "softmax", tuple(map(str, range(classes))))], x.shape[1])
    solve_linear_probe(heads, (x, {name: labels}), fine=False, fixed_l2={name: l2})
    with torch.no_grad():
        bias = heads(torch.zeros(1, x.shape[1]))[name][0]
        weight = (heads(torch.eye(x.shape[1]))[name] - bias).T
    sums = torch.zeros(classes, x.shape[1]).index_add_(0, labels, F.normalize(x))
    return SecondOpinion(*(values.float().numpy() for values in (weight, bias, F.normalize(sums))))
