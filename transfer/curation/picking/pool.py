"""What a strategy knows of the images, and what it chooses of them."""

from dataclasses import dataclass, replace

import numpy as np
import torch

from transfer.semi_supervised.seed_probe import scale_features


@dataclass(frozen=True)
class Choice:
    """An image to label.

    Parameters
    ----------
    row : int
        Of the pool.
    score : float
        How much the strategy wants it; comparable within one run of one strategy.
    reason : str
        Why, in a few words.
    """

    row: int
    score: float
    reason: str


@dataclass(frozen=True, eq=False)
class Pool:
    """Images with features, of which some are labelled, and some may be chosen.

    Parameters
    ----------
    features : ndarray of float32, shape (N, width)
        Of length 1, so that products are cosines: see :func:`scale_to_unit_length`.
    candidates : ndarray of bool, shape (N,)
        Rows that may be chosen.
    covered : ndarray of bool, shape (N,)
        Rows that are labelled, or were chosen before.
    probabilities : ndarray of float64, shape (N, classes), optional
        What the labels so far predict; None with fewer than two labelled classes.
    classes : tuple of str
        Their names.
    seed : int
        Random seed.
    """

    features: np.ndarray
    candidates: np.ndarray
    covered: np.ndarray
    probabilities: np.ndarray | None = None
    classes: tuple[str, ...] = ()
    seed: int = 0

    def __len__(self) -> int:
        return len(self.features)

    @property
    def margins(self) -> np.ndarray:
        """The probability of the likeliest class less that of the second, shape (N,); 0 without probabilities."""
        if self.probabilities is None:
            return np.zeros(len(self))
        two = np.partition(self.probabilities, -2, axis=1)[:, -2:]
        return two[:, 1] - two[:, 0]

    def take(self, rows: np.ndarray) -> "Pool":
        """Return the pool of `rows` (indices or a boolean mask)."""
        probabilities = None if self.probabilities is None else self.probabilities[rows]
        features, candidates, covered = self.features[rows], self.candidates[rows], self.covered[rows]
        return replace(self, features=features, candidates=candidates, covered=covered, probabilities=probabilities)

    def name_likeliest(self, row: int) -> tuple[str, str]:
        """Return the names of the two likeliest classes of a row."""
        assert self.probabilities is not None
        second, first = np.argsort(self.probabilities[row], kind="stable")[-2:]
        return self.classes[first], self.classes[second]


def scale_to_unit_length(features: np.ndarray) -> np.ndarray:
    """Return centred `features` (N, width), scaled as for a probe, with rows of length 1; float32.

    Without the centre taken out all cosines would be high, since the features of a CNN are positive. A row at the
    centre stays zero.

    Raises
    ------
    TransferError
        Features are NaN or infinite.
    """
    scaled = scale_features(torch.from_numpy(np.asarray(features, np.float32))).numpy()
    length = np.linalg.norm(scaled, axis=1, keepdims=True)
    return np.divide(scaled, length, out=np.zeros_like(scaled), where=length > 0)
