"""Solve a linear layer as a convex problem by full-batch L-BFGS, along a grid of L2 values.

The one solver of all probes: those of heads (:mod:`transfer.probes.head_problem`), by which training solves its
policies, and those of cross-validation folds (:mod:`transfer.probes.cross_validation_problem`), by which advice
predicts what the same policies will reach. Objective, L2 grid, curvature, tolerances and stopping rules are defined
here alone.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cache
from threading import Lock
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from threadpoolctl import ThreadpoolController
from torch import Tensor
from tqdm.auto import tqdm

from transfer.evaluation.uncertainty.whitening import compute_gram, invert_triangle
from transfer.runtime import distributed, signals

# L2 grid: l2 = 10^(-step / 2) for steps between these; the search starts at START_STEP.
START_STEP, STRONGEST_STEP, WEAKEST_STEP = 3, -6, 10
START_STEP_OF_FOLDS, STRIDE_OF_FOLDS = 0, 2  # cross-validation tries every second value, from 1 on, to save time
DEFAULT_PROBE_L2 = 0.01  # what Office-31 chooses; used where no validation row can choose
# Stop where the largest gradient component is below this fraction of that of a layer of zeros:
COARSE_TOLERANCE = 5e-3  # while choosing an L2 value
FINE_TOLERANCE = 1e-3  # for the final solution
HISTORY_PAIRS = 5  # L-BFGS: position and gradient differences in memory
MAX_EVALUATIONS = 1000  # of the objective, for one L2 value
MIN_RELATIVE_DECREASE = 1e-9  # of the objective; a smaller one is rounding
# Typical second derivative of the loss in a row's outputs, p (1 - p) <= 1/4, for the preconditioners. It decides how
# many evaluations a solution takes, not where it lies. With the diagonal one 0.05 saves 7 % of the time beside 0.1.
DENSE_CURVATURE, DIAGONAL_CURVATURE = 0.1, 0.05
# From here on a dense preconditioner of its own saves more than it costs; one does for all weaker L2 values.
MIN_EXACT_L2 = 0.1

Preconditioner = Callable[[float], Tensor]
"""L2 value -> R, (width, width) or its diagonal (width,): the objective is nearly round in W R⁻¹."""


def compute_l2(step: int) -> float:
    """Return the L2 value that is `step` half decades below 1.

    Examples
    --------
    >>> compute_l2(0), compute_l2(4), compute_l2(-2)
    (1.0, 0.01, 10.0)
    """
    return 10.0 ** (-step / 2)


def make_dense_preconditioner(x: Tensor) -> Preconditioner:
    """Return the Cholesky factor of the inverse curvature of `x` (N, width), exact from ``MIN_EXACT_L2`` on."""
    curvature = DENSE_CURVATURE / len(x) * compute_gram(x).cpu()
    roots: dict[float, Tensor] = {}
    lock = Lock()  # heads are solved side by side

    def compute_root(l2: float) -> Tensor:
        damping = l2 if l2 >= MIN_EXACT_L2 else DEFAULT_PROBE_L2
        with lock:
            if damping not in roots:
                damped = curvature.clone()
                damped.diagonal().add_(damping)
                roots[damping] = invert_triangle(torch.linalg.cholesky(damped)).to(x.device)
            return roots[damping]

    return compute_root


def make_diagonal_preconditioner(variances: Tensor) -> Preconditioner:
    """Return the same for uncorrelated features, such as principal components, but exact for each L2 value."""
    return lambda l2: (DIAGONAL_CURVATURE * variances + l2).rsqrt()


class LinearProblem:
    """Minimise ``loss(x Wᵀ + b) + l2 / 2 * ||W||²``; each solution starts from the last one.

    Parameters
    ----------
    x : Tensor, shape (N, width)
    outputs : int
        Rows of W; of several layers side by side, those of all.
    loss : callable
        Of outputs (N, outputs): convex and smooth.
    description : str
        Of the progress bar.
    """

    def __init__(
        self,
        x: Tensor,
        outputs: int,
        loss: Callable[[Tensor], Tensor],
        preconditioner: Preconditioner,
        description: str = "solving",
    ) -> None:
        self.x, self.outputs, self.loss = x, outputs, loss
        self.preconditioner, self.description = preconditioner, description
        self.root = preconditioner(DEFAULT_PROBE_L2)
        self.point = np.zeros(outputs * (x.shape[1] + 1))  # W R⁻¹, then b
        self.gradient_at_zero = self._objective(self.point, 0.0)[1]

    def minimise(self, l2: float, fine: bool = False) -> int:
        """Solve at an L2 value; return how often the objective was evaluated."""
        self._precondition(l2)
        tolerance = FINE_TOLERANCE if fine else COARSE_TOLERANCE
        shown: dict[str, Any] = {"desc": f"{self.description} at L2 {l2:.2g}", "unit": "pass", "disable": None}
        with tqdm(leave=False, delay=2, **shown) as bar:

            def objective(point: np.ndarray) -> tuple[float, np.ndarray]:
                if distributed.get_world_size() == 1:
                    signals.raise_if_stop_requested()  # only this solution is lost, and it is computed again
                bar.update()
                return self._objective(point, l2)

            with limit_blas():
                found = minimize(
                    objective,
                    self.point,
                    jac=True,
                    method="L-BFGS-B",
                    options={
                        "gtol": tolerance * float(np.abs(self.gradient_at_zero).max()),
                        "ftol": MIN_RELATIVE_DECREASE,
                        "maxcor": HISTORY_PAIRS,
                        "maxiter": MAX_EVALUATIONS,
                        "maxfun": MAX_EVALUATIONS,
                    },
                )
        self.point = found.x
        return int(found.nfev)

    def search_l2(self, solve: Callable[[float], float], start: int = START_STEP, stride: int = 1) -> int:
        """Return the grid step of least held-out loss; its solution is restored.

        `solve` solves at an L2 value and returns the held-out loss. Every `stride`-th step is tried: from `start`
        towards weaker L2 while the loss falls; where it does not fall at first, towards stronger L2.
        """
        best, least = start, solve(compute_l2(start))
        point = self.point
        weaker = range(start + stride, WEAKEST_STEP + 1, stride)
        stronger = range(start - stride, STRONGEST_STEP - 1, -stride)
        for steps in (weaker, stronger):
            for step in steps:
                loss = solve(compute_l2(step))
                if not loss < least:
                    break
                best, least, point = step, loss, self.point
            self._precondition(compute_l2(best))
            self.point = point
            if best != start:
                break
        return best

    def layer(self) -> tuple[Tensor, Tensor]:
        """Return weight (outputs, width) and bias (outputs,) of the solution."""
        inner, bias = self._unpack(self.point)
        return _apply_root(inner, self.root), bias

    def predict(self, x: Tensor) -> Tensor:
        """Return the outputs (N, outputs) of the solution."""
        return _linear(x, *self.layer())

    def _precondition(self, l2: float) -> None:
        """Express point and gradient in the units of the preconditioner at `l2`, if it depends on it."""
        root = self.preconditioner(l2)
        if root is not self.root:
            old, new = self.root.cpu().double(), root.cpu().double()
            self.point = self._convert(self.point, lambda inner: _apply_inverse(_apply_root(inner, old), new))
            old, new = (part.T if part.ndim == 2 else part for part in (old, new))
            self.gradient_at_zero = self._convert(
                self.gradient_at_zero, lambda inner: _apply_root(_apply_inverse(inner, old), new)
            )
            self.root = root

    def _convert(self, values: np.ndarray, convert: Callable[[Tensor], Tensor]) -> np.ndarray:
        inner, bias = torch.from_numpy(values).tensor_split([-self.outputs])
        return torch.cat([convert(inner.view(self.outputs, -1)).flatten(), bias]).numpy()

    def _objective(self, point: np.ndarray, l2: float) -> tuple[float, np.ndarray]:
        inner, bias = (part.requires_grad_() for part in self._unpack(point))
        with torch.enable_grad():
            weight = _apply_root(inner, self.root)
            total = self.loss(_linear(self.x, weight, bias)) + l2 / 2 * weight.square().sum()
            gradient = torch.autograd.grad(total, (inner, bias))
        return float(total.detach()), torch.cat([part.flatten() for part in gradient]).cpu().double().numpy()

    def _unpack(self, point: np.ndarray) -> tuple[Tensor, Tensor]:
        inner, bias = torch.from_numpy(point).float().to(self.x.device).tensor_split([-self.outputs])
        return inner.view(self.outputs, -1), bias


def limit_blas() -> AbstractContextManager[Any]:
    """Return a context in which SciPy's BLAS uses one thread.

    Its threads would wait for cores on which PyTorch's await the next evaluation. The number is that of the process: of
    contexts at the same time, an outer one must last longest.
    """
    return _find_thread_pools().limit(limits=1, user_api="blas")


@cache
def _find_thread_pools() -> ThreadpoolController:
    return ThreadpoolController()


def _apply_root(inner: Tensor, root: Tensor) -> Tensor:
    """Return W from W R⁻¹."""
    return inner @ root if root.ndim == 2 else inner * root


def _apply_inverse(weight: Tensor, root: Tensor) -> Tensor:
    """Return W R⁻¹; a `root` of two dimensions is triangular."""
    if root.ndim == 1:
        return weight / root
    return torch.linalg.solve_triangular(root, weight, upper=bool(root[0, -1]), left=False)


def _linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    # few outputs, many rows: in this order the product takes half as long as x @ weight.T
    return (weight @ x.T).T + bias
