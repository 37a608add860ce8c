"""How far the gradients of the heads' losses agree in the layers that the heads share.

A cosine of 1 means the same direction, 0 independence. Below 0 a step for one head increases, to first order, the loss
of the other (Yu et al. 2020, "Gradient surgery for multi-task learning").
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import Tensor

from transfer.config.train import LearnConfig
from transfer.feature_cache import Feed
from transfer.heads.heads import known_rows
from transfer.model import TransferModel

MAX_CONFLICT_ROWS = 512  # the gradients are measured on at most this number of rows, the same in each epoch


def measure_conflict(
    model: TransferModel, feed: Feed, rows: np.ndarray, labels: Mapping[str, Tensor], config: LearnConfig
) -> dict[str, Any]:
    """Return how the gradients of the heads' losses agree in the trained layers of the backbone, on a sample of `rows`.

    Measured in eval mode, without random draws. A head with weight 0 in the loss is left out; of a joint head the
    marginals are compared.

    Returns
    -------
    dict
        By two heads' names, such as ``"object domain"``, the ``cosine`` between the gradients of their mean losses and
        the share of batches in ``conflict``, whose cosine is below 0; by head the gradient's ``length``. Empty where
        no two heads share a trained layer.
    """
    names = [name for name, spec in model.heads.specs.items() if spec.weight]
    shared = [p for p in model.backbone.parameters() if p.requires_grad]
    if len(names) < 2 or not shared:
        return {}
    model.eval()
    device = shared[0].device
    total = torch.zeros(len(names), sum(p.numel() for p in shared), device=device)
    count = torch.zeros(len(names), 1, device=device)
    opposed, batches = torch.zeros(len(names), len(names), device=device), 0
    how: Any = {"smoothing": config.label_smoothing, "loss": config.loss}
    for batch, activation in feed.batches(np.random.default_rng(0).permutation(rows)[:MAX_CONFLICT_ROWS]):
        wanted = {name: label[torch.from_numpy(batch)].to(device) for name, label in labels.items()}
        out = model(activation)
        losses = [model.heads.loss(out, _only(name, wanted), **how) for name in names]
        each = torch.stack([_flat_gradient(loss, shared) for loss in losses])
        seen = torch.stack([known_rows(wanted[name]).sum() for name in names])[:, None]
        opposed += each @ each.T < 0
        total += each * seen
        count += seen
        batches += 1
    mean = total / count.clamp_min(1)
    length = torch.linalg.vector_norm(mean, dim=1)
    cosine = mean @ mean.T / (length[:, None] * length).clamp_min(1e-30)
    pairs = {f"{names[i]} {names[j]}": (i, j) for i, j in combinations(range(len(names)), 2)}
    return {
        "cosine": {pair: round(float(cosine[at]), 6) for pair, at in pairs.items()},
        "conflict": {pair: round(float(opposed[at]) / batches, 6) for pair, at in pairs.items()},
        "length": {name: float(value) for name, value in zip(names, length, strict=True)},
    }


def conflict_by_epoch(lines: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """Return, epoch by epoch, the mean over seeds of the conflict between the object and the domain head.

    `lines` are as in metrics.jsonl; those without ``interference`` are ignored.

    Returns
    -------
    dict of str to list of float
        ``cosine``, ``conflict``, and ``ratio``: the length of the domain head's gradient over the object head's.
    """
    epochs: dict[int, list[dict[str, float]]] = {}
    for line in lines:
        if found := line.get("interference"):
            values = {name: found[name]["object domain"] for name in ("cosine", "conflict")}
            values["ratio"] = found["length"]["domain"] / max(found["length"]["object"], 1e-30)
            epochs.setdefault(line["epoch"], []).append(values)
    names = ("cosine", "conflict", "ratio")
    return {name: [fmean(seed[name] for seed in epochs[n]) for n in sorted(epochs)] for name in names}


def _only(name: str, wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the labels of the head `name`, those of all others unknown."""
    return {
        other: label if other == name else torch.full_like(label, torch.nan if label.is_floating_point() else -1)
        for other, label in wanted.items()
    }


def _flat_gradient(loss: Tensor, shared: list[torch.nn.Parameter]) -> Tensor:
    parts = torch.autograd.grad(loss, shared, retain_graph=True, allow_unused=True, materialize_grads=True)
    return torch.cat([part.flatten() for part in parts])
