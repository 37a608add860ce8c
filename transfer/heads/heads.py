"""Heads: from pooled features to the predictions of every target of an image.

A head has a name and a kind (see :mod:`transfer.heads.registry`). Object and domain are the two that every command
knows. Composition ``dual`` gives each its own layers; ``joint`` gives object and domain one softmax over their pairs,
whose marginals predict both. (``separate`` is two models, each with one head: see ``transfer.training.train``.)
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from transfer.heads.layers import build_mlp
from transfer.heads.spec import HeadSpec

PAIR = ("object", "domain")
PAIRS = "object_and_domain"  # the name of what is predicted for pairs
Loss = Literal["cross_entropy", "hinge", "asymmetric"]


def known_rows(target: Tensor) -> Tensor:
    """Return where `target` is known, bool (N,): not NaN for numbers, not -1 for class indices.

    Of several labels an image, (N, labels), at least one is.
    """
    known = ~target.isnan() if target.is_floating_point() else target >= 0
    return known.any(1) if known.ndim == 2 else known


class Heads(nn.Module):
    """Named heads on pooled features (N, width).

    Features are centred and divided by one number (their root-mean-square deviation on the training rows, see
    :meth:`scale_to`), so that one learning rate suits every backbone.

    Parameters
    ----------
    specs : sequence of HeadSpec
    width : int
        Number of features.
    compose : {"dual", "joint"}
    hidden, activation, dropout, init, dropout_kind, drop_connect
        See :func:`transfer.heads.layers.build_mlp`.
    """

    def __init__(  # parameters named as the options of HeadConfig
        self,
        specs: Sequence[HeadSpec],
        width: int,
        *,
        compose: Literal["dual", "joint"] = "dual",
        hidden: Sequence[int] = (),
        activation: str = "relu",
        dropout: float = 0.0,
        init: str = "xavier",
        dropout_kind: str = "inverted",
        drop_connect: float = 0.0,
    ) -> None:
        super().__init__()
        self.specs = {spec.name: spec for spec in specs}
        self.joint = compose == "joint" and all(name in self.specs for name in PAIR)
        sizes = {name: spec.outputs for name, spec in self.specs.items()}
        if self.joint:
            sizes = {"joint": sizes["domain"] * sizes["object"]} | {k: n for k, n in sizes.items() if k not in PAIR}
        options: Any = {"activation": activation, "dropout": dropout, "init": init}
        options |= {"dropout_kind": dropout_kind, "drop_connect": drop_connect}
        self.layers = nn.ModuleDict({_key(name): build_mlp(width, hidden, n, **options) for name, n in sizes.items()})
        self.centre: Tensor
        self.spread: Tensor
        self.register_buffer("centre", torch.zeros(width))
        self.register_buffer("spread", torch.ones(()))

    def layer(self, name: str) -> nn.Module:
        """Return the layers of the head called `name`; ``"joint"`` are those of a joint head."""
        return self.layers[_key(name)]

    def scale_to(self, features: Tensor) -> None:
        """Set centre and spread to those of the training rows' `features` (N, width)."""
        self.centre.copy_(features.mean(0))
        self.spread.copy_((features - self.centre).square().mean().sqrt().clamp_min(1e-6))

    def layer_outputs(self, features: Tensor) -> dict[str, Tensor]:
        """Return what the layers of each head compute of `features`, by name; ``"joint"`` are those of a joint head."""
        x = (features.float() - self.centre) / self.spread
        names = [name for name in self.specs if not (self.joint and name in PAIR)] + ["joint"] * self.joint
        return {name: self.layer(name)(x) for name in names}

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """Return each head's raw output by name.

        Softmax heads give logits (N, classes), binary heads a logit (N,), regression heads the standardised value
        (N,), other kinds what their :meth:`~transfer.heads.kind.HeadKind.shaped` returns. A joint head adds
        ``"joint"``, log-probabilities (N, domains, objects), and gives object and domain as its marginal
        log-probabilities, which are logits too.
        """
        layers = self.layer_outputs(features)
        out = {name: spec.head_kind.shaped(layers[name]) for name, spec in self.specs.items() if name in layers}
        if self.joint:
            pairs = layers["joint"].log_softmax(1)
            pairs = pairs.unflatten(1, (self.specs["domain"].outputs, self.specs["object"].outputs))
            out |= {"joint": pairs, "object": pairs.logsumexp(1), "domain": pairs.logsumexp(2)}
        return out

    def loss(
        self,
        out: Mapping[str, Tensor],
        targets: Mapping[str, Tensor],
        *,
        smoothing: float = 0.0,
        row_weights: Mapping[str, Tensor] | None = None,
        loss: Loss = "cross_entropy",
        totals: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Return the weighted sum over heads of each head's mean loss over the rows where its target is known.

        Under a joint head, rows with both labels cost the loss of the pair, rows with one label that of its marginal.

        Parameters
        ----------
        out : mapping of str to Tensor
            The result of :meth:`forward`.
        targets : mapping of str to Tensor, shape (N,) or (N, labels)
            -1 (NaN for numbers) where unknown.
        smoothing : float
            Label smoothing of softmax heads (Szegedy et al. 2016).
        row_weights : mapping of str to Tensor, shape (N,), optional
            By head name; the mean becomes a weighted one.
        loss : {"cross_entropy", "hinge", "asymmetric"}
            The loss of heads with classes or labels; other kinds have one of their own.
        totals : mapping of str to Tensor, optional
            The result of :meth:`totals` for the whole batch, where these rows are a part of it: the losses of the
            parts then add up to the loss of the batch.
        """
        totals, weights = totals or {}, row_weights or {}
        total = next(iter(out.values())).sum() * 0.0
        known = {name: known_rows(targets[name]) for name in self.specs}
        for name, spec in self.specs.items():
            rows = known[name]
            if self.joint and name in PAIR:  # rows with both labels count once, as a pair, below
                rows = rows & ~(known["object"] & known["domain"])
            each = _row_losses(spec, out[name], targets[name], rows, smoothing, loss)
            total = total + spec.weight * _mean(each, out[name], rows, weights.get(name), totals.get(name))
        if self.joint:
            objects = self.specs["object"].outputs
            pair = HeadSpec("object", weight=max(self.specs[name].weight for name in PAIR))
            index = targets["domain"] * objects + targets["object"]
            rows = known["object"] & known["domain"]
            both = out["joint"].flatten(1)
            each = _row_losses(pair, both, index, rows, smoothing, loss)
            total = total + pair.weight * _mean(each, both, rows, weights.get("object"), totals.get("joint"))
        return total

    def totals(
        self, targets: Mapping[str, Tensor], row_weights: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Return what each head's summed losses are divided by: the number, or weight, of its known rows."""
        known = {name: known_rows(targets[name]) for name in self.specs}
        both = known["object"] & known["domain"] if self.joint else None
        rows = {name: k if both is None or name not in PAIR else k & ~both for name, k in known.items()}
        weights = {name: (row_weights or {}).get(name, torch.ones_like(k.float())) for name, k in rows.items()}
        totals = {name: weights[name][k].sum().clamp_min(1e-12) for name, k in rows.items()}
        return totals if both is None else totals | {"joint": weights["object"][both].sum().clamp_min(1e-12)}

    def predictions(self, out: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the predictions of each head by name, of the result of :meth:`forward`.

        Probabilities (N, classes) of softmax heads, (N,) of binary heads; values in their own unit (N,) of
        regression heads; see :meth:`transfer.heads.kind.HeadKind.predictions`.
        """
        return {name: spec.head_kind.predictions(spec, out[name]) for name, spec in self.specs.items()}


def split_by_layer(heads: Heads) -> dict[str, Heads]:
    """Return, for each layer of `heads`, heads that take this layer's output for features, by name."""
    groups = {name: [spec] for name, spec in heads.specs.items() if not (heads.joint and name in PAIR)}
    if heads.joint:
        groups["joint"] = [heads.specs[name] for name in PAIR]
    parts = {}
    for name, specs in groups.items():
        most = max(spec.weight for spec in specs) or 1.0  # a part is trained alone: only weights within it count
        specs = [replace(spec, weight=spec.weight / most if len(specs) > 1 else 1.0) for spec in specs]
        part = Heads(specs, 1, compose="joint" if name == "joint" else "dual").to(heads.centre.device)
        (key,) = part.layers
        part.layers[key] = nn.Identity()
        parts[name] = part
    return parts


def _key(name: str) -> str:
    """Return `name` as a module name: without dots, which separate modules; a prefix avoids names of dict methods."""
    return "head_" + name.replace("%", "%25").replace(".", "%2E")


def _row_losses(
    spec: HeadSpec, out: Tensor, target: Tensor, rows: Tensor, smoothing: float, loss: Loss
) -> Tensor | None:
    """Return the loss of each of `rows`, a mask; None if there is none."""
    if not bool(rows.any()):
        return None
    return spec.head_kind.losses(spec, out[rows].float(), target[rows], smoothing=smoothing, loss=loss)


def _mean(each: Tensor | None, out: Tensor, rows: Tensor, weights: Tensor | None, total: Tensor | None) -> Tensor:
    """Return the mean of the losses `each`, weighted by `weights` (N,) at `rows`; or their sum over `total`."""
    if each is None:
        return out.sum() * 0.0
    if weights is None:
        return each.mean() if total is None else each.sum() / total
    w = weights[rows]
    if total is not None:
        return (each * w).sum() / total
    return (each * w).sum() / w.sum().clamp_min(1e-12)
