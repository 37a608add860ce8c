"""The linear probe, solved rather than trained: each linear head is a convex problem with one answer.

Multinomial logistic regression (logistic for binary heads, ridge for regression) by full-batch L-BFGS (Liu and Nocedal
1989): no learning rate, no epochs, nothing drawn at random. The regularisation strength is the one with the lowest
loss on the validation rows. Chosen by accuracy instead, which moves in steps of one image, probes of Office-31 are 0.1
to 0.2 points worse on the test rows.

A feature is centred and divided by the geometric mean of its own spread and the mean spread: halfway to full
standardisation, which on every set tried has a validation loss up to 4 % higher. None at all costs SqueezeNet, whose
spreads differ most, 0.3 points of accuracy.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from transfer.errors import TransferError
from transfer.heads.heads import PAIR, Heads
from transfer.probes.lbfgs import FINE, Line, Problem, Scaled

Rows = tuple[Tensor, Mapping[str, Tensor]]
"""Features (N, width) and by head its targets (N,), -1 (NaN for regression) where unknown."""
DEFAULT_STRENGTH = 0.01  # what Office-31 chooses; taken where there is no validation row to choose by
CURVATURE = 0.1  # of the loss in a row's outputs, on the whole: p (1 - p) is at most 1/4
CONSTANT = 1e-6  # a feature that spreads less, relative to its mean, is constant but for rounding


def solvable(heads: Heads) -> bool:
    """Return whether every head is linear, so that learning it is convex."""
    return all(
        isinstance(part, nn.Linear | nn.Dropout) for layers in heads.layers.values() for part in layers.children()
    )


def solve(
    heads: Heads,
    train: Rows,
    val: Rows | None = None,
    *,
    smoothing: float = 0.0,
    row_weights: Mapping[str, Tensor] | None = None,
    strengths: Mapping[str, float] | None = None,
    robust: bool = False,
    on_line: Callable[[Line], None] = lambda line: None,
) -> dict[str, float]:
    """Set linear `heads` to what is best on `train`; return each one's regularisation strength.

    A head minimises its mean loss (:meth:`transfer.heads.heads.Heads.loss`) plus ``strength / 2`` times the sum of its
    squared weights on scaled features; biases are free. (``C`` of scikit-learn is ``1 / (strength * N)``.) Rows
    without a head's label do not count for it; a head without any label is left at zero.

    Parameters
    ----------
    heads : Heads
        For which :func:`solvable` holds. Centre and spread are set too.
    train, val : (Tensor, mapping of str to Tensor)
        What to learn from, and what to choose strengths by. A head without a label in `val` takes
        ``DEFAULT_STRENGTH``.
    smoothing, row_weights
        See :meth:`transfer.heads.heads.Heads.loss`.
    strengths : mapping of str to float, optional
        Solve at just these, choosing nothing; a head not among them takes ``DEFAULT_STRENGTH``.
    robust : bool
        Choose the strongest whose accuracy on the validation rows is within a standard error of the best (Hastie et
        al. 2009, sec. 7.10), for heads that must bear other images than those.
    on_line : callable
        Gets a line for each head and strength, as in metrics.jsonl.

    Returns
    -------
    dict of str to float
        By head with a label; ``"joint"`` for a joint head.

    Raises
    ------
    TransferError
        Features are NaN or infinite.
    """
    chosen = {}
    for task in tasks(heads, train, val if strengths is None else None, row_weights or {}):
        problem = task.problem(smoothing)

        def tell(line: Line, name: str = task.name) -> None:
            on_line({"head": name} | line)

        if problem.val:
            chosen[task.name] = problem.choose_robust(tell) if robust else problem.choose(tell)
        else:
            chosen[task.name] = (strengths or {}).get(task.name, DEFAULT_STRENGTH)
            tell(problem.at(chosen[task.name], FINE))
        task.give(*task.layer(problem))
    return chosen


@dataclass
class Task:
    """One linear layer that is to be solved.

    Parameters
    ----------
    name : str
        Of its head; ``"joint"`` for a joint one.
    heads, part : Heads
        All of them; and one that takes this layer's output for features.
    train, val : Scaled
        What to learn from, and what to choose by.
    scale : Tensor, shape (width,)
        What features were multiplied by.
    root : Tensor, shape (width, width)
        See :func:`_root`.
    """

    name: str
    heads: Heads
    part: Heads
    train: Scaled
    val: Scaled | None
    scale: Tensor
    root: Tensor

    @property
    def linear(self) -> nn.Linear:
        """The layer."""
        return layers(self.heads)[self.name]

    def problem(self, smoothing: float, columns: Tensor | slice | None = None, factor: float = 1.0) -> Problem:
        """Return its problem, on the features `columns` alone, times `factor`, if these are given."""
        root, train, val = self.root, self.train, self.val
        if columns is not None:
            train = replace(train, x=train.x[:, columns] * factor)
            val = val and replace(val, x=val.x[:, columns] * factor)
            root = _root(train.x)
        return Problem(self.part, self.linear.out_features, train, val, root, smoothing)

    def layer(
        self, problem: Problem, columns: Tensor | slice | None = None, factor: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """Return weight and bias of what was found, on all features; others than `columns` count for nothing."""
        weight, bias = problem.layer()
        if columns is None:
            return weight * self.scale, bias
        whole = weight.new_zeros(len(weight), len(self.scale))
        whole[:, columns] = weight * (self.scale[columns] * factor)
        return whole, bias

    def give(self, weight: Tensor, bias: Tensor) -> None:
        """Give the layer what :meth:`layer` returned."""
        with torch.no_grad():
            self.linear.weight.copy_(weight * self.heads.spread)
            self.linear.bias.copy_(bias)


def tasks(
    heads: Heads,
    train: Rows,
    val: Rows | None,
    row_weights: Mapping[str, Tensor],
    blocks: Sequence[tuple[slice, float]] = (),
) -> Iterator[Task]:
    """Yield each layer of `heads` that `train` has a label for; set the others to zero, and centre and spread.

    With `blocks`, slices of features with each one's share of the variance, features are scaled to have these.

    Raises
    ------
    TransferError
        Features are NaN or infinite.
    """
    features, targets = _checked(heads, train, "training")
    heads.scale_to(features)
    centre, x = heads.centre, features - heads.centre
    spread = torch.linalg.vector_norm(x, dim=0) / len(x) ** 0.5
    varies = spread > CONSTANT * centre.abs()
    mean = spread.mean().expand_as(spread).clone()
    for block, share in blocks:
        mean[block] = spread[block].sum() / (share * len(spread))
    scale = torch.where(varies, (spread * mean).rsqrt(), 0.0)
    rows = Scaled(x.mul_(scale), targets, row_weights)
    judged = None
    if val is not None:
        features, targets = _checked(heads, val, "validation")
        judged = Scaled((features - centre).mul_(scale), targets)
    root = _root(rows.x)
    for name, part in _parts(heads).items():
        learnt = rows.of(part)
        if learnt is None:
            linear = layers(heads)[name]
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)
        else:
            yield Task(name, heads, part, learnt, judged and judged.of(part), scale, root)


def layers(heads: Heads) -> dict[str, nn.Linear]:
    """Return the layers of linear `heads` by what they answer; ``"joint"`` is that of a joint head."""
    found = {}
    for name, part in _parts(heads).items():
        (key,) = part.layers
        found[name] = next(layer for layer in heads.layers[key].children() if isinstance(layer, nn.Linear))
    return found


def _checked(heads: Heads, rows: Rows, what: str) -> Rows:
    """Return `rows` on the device of `heads`, features finite."""
    device = heads.centre.device
    features = rows[0].to(device).float()
    bad = ~features.isfinite().all(1)
    if bool(bad.any()):
        raise TransferError(
            f"the features of {int(bad.sum())} of {len(bad)} {what} images are NaN or infinite (the first is number "
            f"{int(bad.nonzero()[0])}): the backbone's weights, or the precision it runs in, do not suit these images"
        )
    return features, {name: target.to(device) for name, target in rows[1].items()}


def _root(x: Tensor) -> Tensor:
    """Return R (width, width) such that the objective is nearly round in W R⁻¹: its curvature in W is near (RᵀR)⁻¹."""
    curvature = CURVATURE / len(x) * (x.T @ x).cpu()
    curvature.diagonal().add_(DEFAULT_STRENGTH)
    one = torch.eye(len(curvature))
    return torch.linalg.solve_triangular(torch.linalg.cholesky(curvature), one, upper=False).to(x.device)


def _parts(heads: Heads) -> dict[str, Heads]:
    """Return, for each layer of `heads`, heads that take this layer's output for features, by name."""
    groups = {name: [spec] for name, spec in heads.specs.items() if not (heads.joint and name in PAIR)}
    if heads.joint:
        groups["joint"] = [heads.specs[name] for name in PAIR]
    parts = {}
    for name, specs in groups.items():
        most = max(spec.weight for spec in specs) or 1.0  # a part is alone: only weights within it mean something
        specs = [replace(spec, weight=spec.weight / most if len(specs) > 1 else 1.0) for spec in specs]
        part = Heads(specs, 1, compose="joint" if name == "joint" else "dual").to(heads.centre.device)
        (key,) = part.layers
        part.layers[key] = nn.Identity()
        parts[name] = part
    return parts
