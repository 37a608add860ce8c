"""Temperature scaling: heads whose probabilities are as high as their accuracy (Guo et al. 2017, section 4.2).

Dividing logits by a temperature changes no decision. It is fitted on the validation rows, or on rows without labels to
an estimate of their accuracy, and folded into the head's last layer, so that predictions, exports and ensembles have it
without knowing of it.
"""

import math
from collections.abc import Mapping

import numpy as np
import torch
from scipy.optimize import brentq
from torch import Tensor, nn

from transfer.feature_cache import Feed
from transfer.heads.heads import Heads, known_rows, split_by_layer
from transfer.model import TransferModel
from transfer.runtime import distributed

BOUNDS = math.log(1 / 20), math.log(20)  # of the logarithm of a temperature
# Standard deviation of the logarithm's normal prior with mean 0. Without a prior, a few validation rows that are all
# correct would ask for a temperature of 0.
PRIOR_SD = 0.5


def fit_temperatures(
    model: TransferModel, feed: Feed, rows: np.ndarray, labels: Mapping[str, Tensor]
) -> dict[str, float]:
    """Return the likeliest temperature of each layer of logits with labelled rows, by head; ``"joint"`` is a joint one.

    Parameters
    ----------
    rows : ndarray, shape (N,)
        Validation rows of the table that `feed` reads.
    labels : mapping of str to Tensor
        Of all rows of the table, by head; -1 where unknown.
    """
    model.eval()
    layers: dict[str, list[Tensor]] = {}
    with torch.inference_mode():
        for batch, activation in feed.batches(rows, split=True):
            features = feed.gather_batch(model.features(activation), len(batch))
            for name, values in model.heads.layer_outputs(features).items():
                layers.setdefault(name, []).append(values.cpu().double())
    targets = {name: label[torch.from_numpy(rows)] for name, label in labels.items()}
    found = {}
    for name, part in split_by_layer(model.heads).items():
        labelled = any(bool(known_rows(targets[head]).any()) for head in part.specs)
        if labelled and all(spec.head_kind.logits for spec in part.specs.values()):
            found[name] = _fit(part.cpu().double(), torch.cat(layers[name]), targets)
    return distributed.broadcast(found)  # outputs may differ between processes in their last digits


def _fit(part: Heads, outputs: Tensor, targets: Mapping[str, Tensor]) -> float:
    """Return where the slope of the negative log-posterior is zero, which rounding blurs less than its minimum."""
    summed = dict.fromkeys((*part.specs, "joint"), torch.ones(()))  # losses are divided by this: by nothing

    def compute_slope(value: float) -> float:
        log_temperature = torch.tensor(value, dtype=torch.float64, requires_grad=True)
        loss = part.loss(part(outputs / log_temperature.exp()), targets, totals=summed)
        (loss + (log_temperature / PRIOR_SD).square() / 2).backward()
        assert log_temperature.grad is not None
        return float(log_temperature.grad)

    low, high = BOUNDS
    at_low, at_high = compute_slope(low), compute_slope(high)
    if not (math.isfinite(at_low) and math.isfinite(at_high)):  # of a network that diverged
        return 1.0
    if at_low >= 0:
        return math.exp(low)
    return math.exp(high if at_high <= 0 else brentq(compute_slope, low, high))


def match_confidence(logits: Tensor, accuracy: float) -> float:
    """Return the temperature at which the mean confidence of `logits` (N, classes) equals their estimated `accuracy`.

    Laplace's rule of succession keeps an estimate of 1 on few rows from asking for certainty.
    """
    expected = (len(logits) * accuracy + 1) / (len(logits) + 2)

    def compute_excess(value: float) -> float:
        return float((logits.double() / math.exp(value)).softmax(1).amax(1).mean()) - expected

    low, high = BOUNDS
    at_low, at_high = compute_excess(low), compute_excess(high)
    if not (math.isfinite(at_low) and math.isfinite(at_high)):  # of a network that diverged
        return 1.0
    if at_low <= 0:
        return math.exp(low)
    return math.exp(high if at_high >= 0 else brentq(compute_excess, low, high))


def apply_temperatures(heads: Heads, temperatures: Mapping[str, float]) -> None:
    """Divide the outputs of these layers by their temperatures, in the weights of their last linear layers."""
    with torch.no_grad():
        for name, temperature in temperatures.items():
            last = [module for module in heads.layer(name).modules() if isinstance(module, nn.Linear)][-1]
            last.weight.div_(temperature)
            last.bias.div_(temperature)
