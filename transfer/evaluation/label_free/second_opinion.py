"""A second opinion on images that look different: classifiers of features standardised by these images themselves.

Where all images look different, such as darker, their features move as a whole. The model takes that for other classes;
these classifiers do not. Where they disagree with the model, one of them is wrong, however confident it is.
"""

from dataclasses import dataclass

import numpy as np

MIN_SPREAD = 1e-3  # of a feature, relative to the mean spread: constant ones are not blown up


@dataclass(frozen=True, eq=False)
class SecondOpinion:
    """A linear probe and class centroids; fitted by :func:`transfer.probes.second_opinions.fit_second_opinion`.

    Parameters
    ----------
    weight, bias : ndarray of float32, shape (classes, F) and (classes,)
        Of the probe.
    centroids : ndarray of float32, shape (classes, F)
        Mean direction of the features of each class, of length 1; zero for a class without images.
    """

    weight: np.ndarray
    bias: np.ndarray
    centroids: np.ndarray

    def measure_agreement(self, features: np.ndarray, predicted: np.ndarray) -> float:
        """Return the share of images for which probe and nearest centroid both say the `predicted` class (N,).

        The `features` (N, F) are standardised by their own mean and spread.
        """
        x = standardise(features)
        by_probe = (x @ self.weight.T + self.bias).argmax(1)
        by_centroid = (x @ self.centroids.T).argmax(1)  # the length of x has no effect on which is nearest
        return float(((by_probe == predicted) & (by_centroid == predicted)).mean())


def standardise(features: np.ndarray) -> np.ndarray:
    """Return `features` (N, F) with mean 0 and spread 1, float32.

    Examples
    --------
    >>> standardise(np.array([[1.0, 5.0], [3.0, 5.0]])).round(2).tolist()
    [[-1.0, 0.0], [1.0, 0.0]]
    """
    x = features.astype(np.float32)
    spread = x.std(0)
    return (x - x.mean(0)) / np.maximum(spread, MIN_SPREAD * spread.mean() + np.finfo(np.float32).tiny)
