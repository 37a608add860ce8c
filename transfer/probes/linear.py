"""The linear probe, solved rather than trained: each linear head is a convex problem with one solution.

Multinomial logistic regression (logistic for binary heads, ridge for regression) by full-batch L-BFGS (Liu and Nocedal
1989): no learning rate, no epochs, no random numbers. The L2 value with the lowest loss on the validation rows is
chosen. Chosen by accuracy instead, which moves in steps of one image, probes of Office-31 are 0.1 to 0.2 points worse
on the test rows.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypedDict, Unpack

import torch
from torch import Tensor, nn

from transfer.heads.heads import Heads, known_rows, split_by_layer
from transfer.probes.head_problem import HeadProblem, LogLine, ScaledRows
from transfer.probes.lbfgs import DEFAULT_PROBE_L2, Preconditioner, make_dense_preconditioner
from transfer.probes.scaling import Blocks, check_finite, compute_feature_scale
from transfer.probes.side_by_side import run_side_by_side

Rows = tuple[Tensor, Mapping[str, Tensor]]
"""Features (N, width) and by head its targets (N,), -1 (NaN for regression) where unknown."""
# Of features (N, width) with weights (width, outputs), for one core. An evaluation of the objective takes at most 50 ms
# then. A larger problem is solved on all cores: its bits depend on their number.
MAX_MULTIPLICATIONS = 3e8


def is_linear(heads: Heads) -> bool:
    """Return whether every head is linear."""
    return all(
        isinstance(part, nn.Linear | nn.Dropout) for layers in heads.layers.values() for part in layers.children()
    )


def is_convex(heads: Heads) -> bool:
    """Return whether fitting `heads` is convex: every head is linear, and its loss convex in the outputs."""
    return is_linear(heads) and all(spec.head_kind.convex for spec in heads.specs.values())


class SolverOptions(TypedDict, total=False):
    """Optional arguments of all three solvers."""

    smoothing: float  # see `Heads.loss`
    row_weights: Mapping[str, Tensor] | None  # see `Heads.loss`
    fixed_l2: Mapping[str, Any] | None  # solutions by head, as the solver returned them: repeat them, choose nothing
    on_line: Callable[[LogLine], None]  # called with a line of metrics.jsonl for each head and L2 value


def solve_linear_probe(
    heads: Heads,
    train: Rows,
    val: Rows | None = None,
    *,
    robust: bool = False,
    fine: bool = True,
    **options: Unpack[SolverOptions],
) -> dict[str, float]:
    """Set linear `heads` to the minimum of their regularised loss on `train`; return each head's L2 value.

    A head minimises its mean loss (:meth:`transfer.heads.heads.Heads.loss`) plus ``l2 / 2`` times the sum of its
    squared weights on scaled features; biases are not penalised. (``C`` of scikit-learn is ``1 / (l2 * N)``.) Rows
    without a head's label do not count for it; a head without any label is left at zero and is not in the result. A
    joint head is called ``"joint"``.

    Parameters
    ----------
    heads : Heads
        Linear ones: see :func:`is_linear`. Centre and spread are set too.
    train, val
        Rows to fit, and rows to choose L2 values by. A head without a label in `val` takes ``DEFAULT_PROBE_L2``.
    robust : bool
        Choose the strongest L2 whose accuracy on the validation rows is within a standard error of the best (Hastie et
        al. 2009, sec. 7.10), for heads that will be used on images of another domain.
    fine : bool
        False stops at ``COARSE_TOLERANCE`` where nothing is to be chosen, after half as many steps: for probes that
        only serve to compare.

    Raises
    ------
    TransferError
        Features are NaN or infinite.
    """

    def solve(layer: HeadLayer, on_line: Callable[[LogLine], None]) -> float:
        problem = layer.problem()
        if layer.val:
            l2 = problem.choose_robust_l2(on_line) if robust else problem.choose_l2(on_line)[0]
        else:
            l2 = DEFAULT_PROBE_L2 if layer.fixed is None else layer.fixed
            on_line(problem.solve_at(l2, fine=fine))
        layer.set_weights(*layer.unscale(problem))
        return l2

    problems = layer_problems(heads, train, val, **options)
    if not fits_one_core(heads, train[0]):
        return {layer.name: solve(layer, layer.log) for layer in problems}
    layers = list(problems)
    lines: list[list[LogLine]] = [[] for _ in layers]
    jobs = [partial(solve, layer, of_layer.append) for layer, of_layer in zip(layers, lines, strict=True)]
    chosen = dict(zip((layer.name for layer in layers), run_side_by_side(jobs), strict=True))
    for layer, of_layer in zip(layers, lines, strict=True):
        for line in of_layer:
            layer.log(line)
    return chosen


@dataclass
class HeadLayer:
    """One linear layer to be solved."""

    name: str  # of its head; "joint" for a joint one
    heads: Heads  # all of them
    part: Heads  # takes this layer's output for features
    train: ScaledRows
    val: ScaledRows | None  # rows to choose by
    scale: Tensor  # factor of each feature, (width,): see `compute_feature_scale`
    preconditioner: Preconditioner
    options: SolverOptions
    columns: Tensor | slice | None = None  # the features that are used; None: all
    factor: float = 1.0  # further factor of these features

    @property
    def linear(self) -> nn.Linear:
        """The layer itself."""
        return linear_layers(self.heads)[self.name]

    @property
    def fixed(self) -> Any:
        """The solution to repeat; None: there is none."""
        return (self.options.get("fixed_l2") or {}).get(self.name)

    def known_rows(self, targets: Mapping[str, Tensor]) -> Tensor:
        """Return which rows of `targets`, from which `train` was made, are in it: those with a label, bool (N,)."""
        return torch.stack([known_rows(targets[name]) for name in self.part.specs]).any(0).cpu()

    def loss(self, out: Tensor) -> Tensor:
        """Return the loss on the training rows of the layer's outputs (N, K)."""
        return self.train.loss(self.part, self.part(out), self.options.get("smoothing", 0.0))

    def log(self, line: LogLine, **place: Any) -> None:
        """Report a log line of this head; `place` says which of its probes it is about."""
        if "on_line" in self.options:
            self.options["on_line"]({"head": self.name} | place | line)

    def select(self, columns: Tensor | slice | None, factor: float = 1.0) -> "HeadLayer":
        """Return this layer with only the features `columns`, times `factor`; all of them for None."""
        if columns is None:
            return self
        train = replace(self.train, x=self.train.x[:, columns] * factor)
        val = self.val and replace(self.val, x=self.val.x[:, columns] * factor)
        preconditioner = make_dense_preconditioner(train.x)
        return replace(self, train=train, val=val, preconditioner=preconditioner, columns=columns, factor=factor)

    def problem(self) -> HeadProblem:
        """Return the problem that its weights on scaled features solve."""
        outputs, smoothing = self.linear.out_features, self.options.get("smoothing", 0.0)
        return HeadProblem(self.part, outputs, self.train, self.val, self.preconditioner, smoothing)

    def unscale(self, problem: HeadProblem) -> tuple[Tensor, Tensor]:
        """Return the solution's weight and bias on all centred features; the weight is zero beside `columns`."""
        weight, bias = problem.layer()
        if self.columns is None:
            return weight * self.scale, bias
        whole = weight.new_zeros(len(weight), len(self.scale))
        whole[:, self.columns] = weight * (self.scale[self.columns] * self.factor)
        return whole, bias

    def set_weights(self, weight: Tensor, bias: Tensor) -> None:
        """Write weight and bias, as :meth:`unscale` returns them, into the layer."""
        with torch.no_grad():
            self.linear.weight.copy_(weight * self.heads.spread)
            self.linear.bias.copy_(bias)


def layer_problems(
    heads: Heads, train: Rows, val: Rows | None = None, blocks: Blocks = (), **options: Unpack[SolverOptions]
) -> Iterator[HeadLayer]:
    """Yield each layer of `heads` that `train` has a label for; set the others to zero, and centre and spread.

    With `blocks` features are scaled to have these shares of the variance.
    """
    features, targets = _on_device(heads, train, "training images")
    heads.scale_to(features)
    centre, x = heads.centre, features - heads.centre
    scale = compute_feature_scale(x, centre, blocks)
    train_rows = ScaledRows(x.mul_(scale), targets, options.get("row_weights") or {})
    val_rows = None
    if val is not None and options.get("fixed_l2") is None:
        features, targets = _on_device(heads, val, "validation images")
        val_rows = ScaledRows((features - centre).mul_(scale), targets)
    preconditioner = make_dense_preconditioner(train_rows.x)
    for name, part in split_by_layer(heads).items():
        labelled = train_rows.labelled_for(part)
        if labelled is None:
            linear = linear_layers(heads)[name]
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)
        else:
            labelled_val = val_rows and val_rows.labelled_for(part)
            yield HeadLayer(name, heads, part, labelled, labelled_val, scale, preconditioner, options)


def fits_one_core(heads: Heads, features: Tensor) -> bool:
    """Return whether linear `heads` on `features` (N, width) are solved on one core of a CPU each."""
    outputs = max(layer.out_features for layer in linear_layers(heads).values())
    return heads.centre.device.type == "cpu" and features.numel() * outputs <= MAX_MULTIPLICATIONS


def linear_layers(heads: Heads) -> dict[str, nn.Linear]:
    """Return the layers of linear `heads` by head; ``"joint"`` is that of a joint head."""
    found = {}
    for name, part in split_by_layer(heads).items():
        (key,) = part.layers
        found[name] = next(layer for layer in heads.layers[key].children() if isinstance(layer, nn.Linear))
    return found


def _on_device(heads: Heads, rows: Rows, images: str) -> Rows:
    """Return `rows` on the device of `heads`, after checking that features are finite."""
    device = heads.centre.device
    features = rows[0].to(device).float()
    check_finite(features, images)
    return features, {name: target.to(device) for name, target in rows[1].items()}
