"""Unknown scores: how likely does an image show no known class?

Published scores, each larger for stranger images. None is best on all data, so that a run chooses by leaving classes
out: see :func:`transfer.probes.left_out_classes.measure_left_out`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from transfer.evaluation.predictions import iterate_outputs
from transfer.evaluation.uncertainty.whitening import compute_gram, invert_triangle
from transfer.feature_cache import Feed
from transfer.model import TransferModel

HEAD = "object"  # the head whose classes are the known ones
MAX_NEIGHBOURS = 1000  # training rows that the nearest-neighbour score compares with; 2.5 MB of 1,280 features
State = dict[str, Tensor]


@dataclass(frozen=True)
class ScoreKind:
    """A score: `fit` returns what it needs of features (N, F) and labels (N,), all of them known.

    `compute` returns the score (N,) from that, features (N, F) and logits (N, classes).
    """

    summary: str
    fit: Callable[[Tensor, Tensor], State]
    compute: Callable[[Mapping[str, Tensor], Tensor, Tensor], Tensor]


def _fit_nothing(features: Tensor, labels: Tensor) -> State:
    return {}


def _fit_neighbours(features: Tensor, labels: Tensor) -> State:
    """Return at most `MAX_NEIGHBOURS` rows, of each class its share."""
    rows = labels.argsort(stable=True)
    if len(rows) > MAX_NEIGHBOURS:
        rows = rows[torch.linspace(0, len(rows) - 1, MAX_NEIGHBOURS, device=rows.device).long()]
    return {"rows": F.normalize(features[rows].float()).half()}


def _nearest_cosine(state: Mapping[str, Tensor], features: Tensor) -> Tensor:
    return (F.normalize(features.float()) @ state["rows"].float().T).amax(1)


def _fit_gaussians(features: Tensor, labels: Tensor) -> State:
    """Return the class means, whitened, and the factor that whitens, of unit features with a shared covariance.

    The covariance is shrunk towards a multiple of the identity (oracle approximating shrinkage, Chen et al. 2010).
    """
    unit = F.normalize(features.float())
    classes, places = labels.unique(return_inverse=True)
    sums = torch.zeros(len(classes), unit.shape[1], device=unit.device).index_add_(0, places, unit)
    means = sums / places.bincount(minlength=len(classes))[:, None]
    residuals = unit - means[places]
    n, p = residuals.shape
    covariance = compute_gram(residuals) / n
    mu, alpha = covariance.diagonal().mean(), covariance.square().mean()
    spread = (n + 1) * (alpha - mu**2 / p)
    share = ((alpha + mu**2) / spread).clamp(0, 1) if bool(spread > 0) else torch.ones(())
    covariance = (1 - share) * covariance + (share * mu).clamp_min(1e-10) * torch.eye(p, device=unit.device)
    lower = torch.linalg.cholesky(covariance)
    whiten = invert_triangle(lower).T.contiguous()
    # The scale has no effect on the order of scores, and float16 holds numbers near 1.
    whiten = (whiten / whiten.abs().max()).half()
    return {"whiten": whiten, "means": means @ whiten.float()}


def _squared_distance(state: Mapping[str, Tensor], features: Tensor, logits: Tensor) -> Tensor:
    white, means = F.normalize(features.float()) @ state["whiten"].float(), state["means"]
    products = white @ means.T
    return (white.square().sum(1, keepdim=True) - 2 * products + means.square().sum(1)).amin(1)


UNKNOWN_SCORES: dict[str, ScoreKind] = {
    "energy": ScoreKind(
        "free energy of the logits (Liu et al. 2020)", _fit_nothing, lambda state, x, logits: -logits.logsumexp(1)
    ),
    "msp": ScoreKind(
        "1 - probability of the predicted class (Hendrycks and Gimpel 2017)",
        _fit_nothing,
        lambda state, x, logits: 1 - logits.softmax(1).amax(1),
    ),
    "knn": ScoreKind(
        "cosine distance to the nearest training image (Sun et al. 2022)",
        _fit_neighbours,
        lambda state, x, logits: 1 - _nearest_cosine(state, x),
    ),
    "guided": ScoreKind(
        "free energy times cosine to the nearest training image (after NNGuide, Park et al. 2023)",
        _fit_neighbours,
        lambda state, x, logits: -logits.logsumexp(1) * _nearest_cosine(state, x),
    ),
    "mahalanobis": ScoreKind(
        "Mahalanobis distance of normalised features to the nearest class (Mahalanobis++, Mueller and Hein 2025)",
        _fit_gaussians,
        _squared_distance,
    ),
}


@dataclass(frozen=True, eq=False)
class UnknownScore:
    """One of `UNKNOWN_SCORES`, fitted to training rows, and the scores of known images that were not trained on.

    Parameters
    ----------
    name : str
        Key of `UNKNOWN_SCORES`.
    state : dict of str to Tensor
        What its ``fit`` returned.
    reference : Tensor of float32, shape (N,)
        Scores of images of known classes that neither heads nor score were fitted to.
    aurocs : dict of str to float
        By score, how well it distinguished left-out classes: mean area under the ROC curve. Empty if nothing was left
        out.
    reason : str
        Why this score was taken.
    """

    name: str
    state: State
    reference: Tensor
    aurocs: dict[str, float] = field(default_factory=dict)
    reason: str = ""

    @classmethod
    def fitted(cls, name: str, features: Tensor, labels: Tensor) -> "UnknownScore":
        """Return the score `name` fitted to `features` (N, F) of known `labels` (N,), without a reference."""
        fitted = UNKNOWN_SCORES[name].fit(features, labels.to(features.device))
        state = {key: values.cpu() for key, values in fitted.items()}
        return cls(name, state, torch.empty(0))

    def compute(self, features: Tensor, logits: Tensor) -> Tensor:
        """Return the score itself, (N,), from features (N, F) and the head's output (N, classes), or (N,) if binary."""
        logits = logits if logits.ndim == 2 else torch.stack([torch.zeros_like(logits), logits], 1)
        logits = logits.to(features.device, torch.float32)  # held-out ones are on the CPU
        state = {key: values.to(features.device) for key, values in self.state.items()}
        return UNKNOWN_SCORES[self.name].compute(state, features, logits)

    def rate(self, features: Tensor, logits: Tensor) -> Tensor:
        """Return the share (N,) of known images that score less than each image: 0.99 is stranger than 99 % of them."""
        scores = self.compute(features, logits)
        return (scores[:, None] > self.reference.to(scores.device)).float().mean(1)

    def score_rows(self, model: TransferModel, feed: Feed, rows: np.ndarray, *, raw: bool = False) -> np.ndarray:
        """Return :meth:`rate` (N,) for `rows` of `feed`; with `raw` the score itself."""
        model.eval()
        method = self.compute if raw else self.rate
        with torch.inference_mode():
            parts = [method(x, out[HEAD]).cpu() for x, out in iterate_outputs(model, feed, rows)]
        return torch.cat(parts).double().numpy() if parts else np.empty(0)

    def describe(self) -> dict[str, Any]:
        """Return name, candidates and the number of known images, for the result."""
        return {"score": self.name, "auroc": self.aurocs, "reason": self.reason, "n": len(self.reference)}


def measure_auroc(known: np.ndarray, unknown: np.ndarray) -> float:
    """Return how often a score of `unknown` (M,) is larger than one of `known` (N,), ties counted half.

    Examples
    --------
    >>> measure_auroc(np.array([0.1, 0.2, 0.5]), np.array([0.5, 0.9]))
    0.9166666666666666
    """
    ordered = np.sort(known)
    below = np.searchsorted(ordered, unknown, "left") + np.searchsorted(ordered, unknown, "right")
    return float(below.mean() / (2 * len(known)))
