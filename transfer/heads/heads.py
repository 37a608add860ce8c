"""Heads: from pooled features to what is asked of each image.

A head is a name and a kind (softmax, binary, regression). Object and domain are the two that every command knows.
Composition ``dual`` gives each its own layers; ``joint`` gives object and domain one softmax over their pairs, whose
marginals answer both. (``separate`` is two models, each with one head: see ``transfer.training.train``.)
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from transfer.data.table import Kind
from transfer.heads.dropout import DropConnect, Dropout, VanillaDropout
from transfer.heads.hinge import binary_hinge, hinge

DROPOUTS = {"inverted": Dropout, "vanilla": VanillaDropout}
ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh, "elu": nn.ELU}
PAIR = ("object", "domain")
Loss = Literal["cross_entropy", "hinge"]


@dataclass(frozen=True)
class HeadSpec:
    """What one head predicts.

    Parameters
    ----------
    classes : tuple of str
        Names by index; empty for regression.
    weight : float
        Of its loss in the sum.
    centre, spread : float
        Of a regression target on the training rows: the head learns ``(y - centre) / spread``.
    """

    name: str
    kind: Kind = "softmax"
    classes: tuple[str, ...] = ()
    weight: float = 1.0
    centre: float = 0.0
    spread: float = 1.0

    @property
    def outputs(self) -> int:
        """How many numbers the head puts out."""
        return len(self.classes) if self.kind == "softmax" else 1


def known(spec: HeadSpec, target: Tensor) -> Tensor:
    """Return where `target` (N,) is known: not -1, or not NaN for regression."""
    return ~target.isnan() if spec.kind == "regression" else target >= 0


def mlp(
    width: int,
    hidden: Sequence[int],
    outputs: int,
    *,
    activation: str,
    dropout: float,
    init: str,
    dropout_kind: str = "inverted",
    drop_connect: float = 0.0,
) -> nn.Sequential:
    """Return a linear layer, or an MLP with `hidden` sizes, weights drawn by `init` and biases zero.

    ``xavier`` is Glorot and Bengio 2010, normal; ``he`` is He et al. 2015, normal, fan-in.
    """
    sizes = [width, *hidden, outputs]
    layers = nn.Sequential()  # named so that saved heads have the same keys with and without dropout
    for i, (into, out) in enumerate(itertools.pairwise(sizes)):
        if dropout:
            layers.add_module(f"dropout{i}", DROPOUTS[dropout_kind](dropout))
        linear = DropConnect(into, out, drop_connect) if drop_connect else nn.Linear(into, out)
        if init == "he":
            nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
        else:
            nn.init.xavier_normal_(linear.weight)
        nn.init.zeros_(linear.bias)
        layers.add_module(str(2 * i), linear)
        if i < len(hidden):
            layers.add_module(str(2 * i + 1), ACTIVATIONS[activation]())
    return layers


class Heads(nn.Module):
    """Named heads on pooled features (N, width).

    Features are centred and divided by one number (their root-mean-square deviation on the training rows, see
    :meth:`scale_to`), so that one learning rate suits every backbone.

    Parameters
    ----------
    specs : sequence of HeadSpec
    width : int
        Of the features.
    compose : {"dual", "joint"}
    hidden, activation, dropout, init, dropout_kind, drop_connect
        See :func:`mlp`.
    """

    def __init__(
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
            sizes = {
                "joint": sizes["domain"] * sizes["object"],
                **{k: v for k, v in sizes.items() if k not in PAIR},
            }
        how: Any = {"activation": activation, "dropout": dropout, "init": init}
        how |= {"dropout_kind": dropout_kind, "drop_connect": drop_connect}
        self.layers = nn.ModuleDict({_key(name): mlp(width, hidden, out, **how) for name, out in sizes.items()})
        self.centre: Tensor
        self.spread: Tensor
        self.register_buffer("centre", torch.zeros(width))
        self.register_buffer("spread", torch.ones(()))

    def layer(self, name: str) -> nn.Module:
        """Return the layers of the head called `name`; ``"joint"`` are those of a joint head."""
        return self.layers[_key(name)]

    def scale_to(self, features: Tensor) -> None:
        """Take centre and spread from the training rows' `features` (N, width)."""
        self.centre.copy_(features.mean(0))
        self.spread.copy_((features - self.centre).square().mean().sqrt().clamp_min(1e-6))

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """Return each head's output by name.

        Softmax heads give logits (N, classes), binary heads a logit (N,), regression heads the standardised value
        (N,). A joint head adds ``"joint"``, log-probabilities (N, domains, objects), and gives object and domain as
        its marginal log-probabilities, which are logits too.
        """
        x = (features.float() - self.centre) / self.spread
        out = {}
        for name, spec in self.specs.items():
            if not (self.joint and name in PAIR):
                y = self.layer(name)(x)
                out[name] = y if spec.kind == "softmax" else y.squeeze(1)
        if self.joint:
            pairs = self.layer("joint")(x).log_softmax(1)
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
        kind: Loss = "cross_entropy",
        totals: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Return the weighted sum over heads of each one's mean loss over the rows where its target is known.

        Under a joint head, rows with both labels cost the loss of the pair, rows with one label that of its marginal.

        Parameters
        ----------
        out
            What :meth:`forward` returned.
        targets : mapping of str to Tensor, shape (N,)
            -1 (NaN for regression) where unknown.
        smoothing : float
            Label smoothing of softmax heads (Szegedy et al. 2016).
        row_weights : mapping of str to Tensor, shape (N,), optional
            By head name; the mean becomes a weighted one.
        kind : {"cross_entropy", "hinge"}
            Of softmax and binary heads; regression is squared error.
        totals : mapping of str to Tensor, optional
            What :meth:`totals` returned for a batch that these rows are a part of: the parts' losses add up to its.
        """
        totals = totals or {}
        total = next(iter(out.values())).sum() * 0.0
        seen = {name: known(spec, targets[name]) for name, spec in self.specs.items()}
        for name, spec in self.specs.items():
            rows = seen[name]
            if self.joint and name in PAIR:  # both labels: the pair's business, once, below
                rows = rows & ~(seen["object"] & seen["domain"])
            mean = _mean(spec, out[name], targets[name], rows, smoothing, row_weights, kind, totals.get(name))
            total = total + spec.weight * mean
        if self.joint:
            objects = self.specs["object"].outputs
            pair = HeadSpec("object", weight=max(self.specs[name].weight for name in PAIR))
            index = targets["domain"] * objects + targets["object"]
            rows = seen["object"] & seen["domain"]
            both = out["joint"].flatten(1)
            mean = _mean(pair, both, index, rows, smoothing, row_weights, kind, totals.get("joint"))
            total = total + pair.weight * mean
        return total

    def totals(
        self, targets: Mapping[str, Tensor], row_weights: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Return by how much each head's summed losses are divided: the number, or weight, of its known rows."""
        seen = {name: known(spec, targets[name]) for name, spec in self.specs.items()}
        both = seen["object"] & seen["domain"] if self.joint else None
        rows = {name: some if both is None or name not in PAIR else some & ~both for name, some in seen.items()}
        weights = {name: (row_weights or {}).get(name, torch.ones_like(some.float())) for name, some in rows.items()}
        found = {name: weights[name][some].sum().clamp_min(1e-12) for name, some in rows.items()}
        return found if both is None else found | {"joint": weights["object"][both].sum().clamp_min(1e-12)}

    def answers(self, out: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return probabilities (N, classes) for softmax, (N,) for binary heads, and values in their own unit (N,)."""
        answer = {}
        for name, spec in self.specs.items():
            if spec.kind == "softmax":
                answer[name] = out[name].float().softmax(1)
            elif spec.kind == "binary":
                answer[name] = out[name].float().sigmoid()
            else:
                answer[name] = out[name].float() * spec.spread + spec.centre
        return answer


def _key(name: str) -> str:
    """Return `name` as a module name: no dots, which part modules; a prefix keeps clear of dict methods."""
    return "head_" + name.replace("%", "%25").replace(".", "%2E")


def _mean(
    spec: HeadSpec,
    out: Tensor,
    target: Tensor,
    rows: Tensor,
    smoothing: float,
    weights: Mapping[str, Tensor] | None,
    kind: Loss,
    total: Tensor | None = None,
) -> Tensor:
    if not bool(rows.any()):
        return out.sum() * 0.0
    out, target = out[rows].float(), target[rows]
    if spec.kind != "regression" and kind == "hinge":
        each = hinge(out, target) if spec.kind == "softmax" else binary_hinge(out, target)
    elif spec.kind == "softmax":
        each = F.cross_entropy(out, target, label_smoothing=smoothing, reduction="none")
    elif spec.kind == "binary":
        each = F.binary_cross_entropy_with_logits(out, target.float(), reduction="none")
    else:
        each = F.mse_loss(out, (target.float() - spec.centre) / spec.spread, reduction="none")
    if weights is None or spec.name not in weights:
        return each.mean() if total is None else each.sum() / total
    w = weights[spec.name][rows]
    if total is not None:
        return (each * w).sum() / total
    return (each * w).sum() / w.sum().clamp_min(1e-12)
