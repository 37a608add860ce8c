"""Do new images differ from those of the training set? A two-sample test of predictions, with few false alarms."""

import numpy as np

ALARM_LEVEL = 0.01  # share of false alarms on images like those of the training set, at most


def compute_shift_p(held_out: np.ndarray, new: np.ndarray) -> float:
    """Return how likely it is, at most, that predictions differ this much between sets of images of one kind.

    Each class's probabilities are compared by a Kolmogorov-Smirnov test, and the least p-value is multiplied by the
    number of classes (Bonferroni). Lipton et al. 2018 detect changed class shares so; of the tests of Rabanser et al.
    2019, "Failing loudly", it detected most kinds of shift.

    Parameters
    ----------
    held_out : ndarray, shape (N, classes)
        Probabilities of images of the training set, by heads that were not trained on them.
    new : ndarray, shape (M, classes)
        Those of new images.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> alike, other = rng.dirichlet([5, 1], 200), rng.dirichlet([1, 5], 200)
    >>> compute_shift_p(rng.dirichlet([5, 1], 200), alike) > ALARM_LEVEL
    True
    >>> compute_shift_p(rng.dirichlet([5, 1], 200), other) < ALARM_LEVEL
    True
    """
    from scipy.stats import ks_2samp  # takes 0.3 s

    values = [float(ks_2samp(*columns).pvalue) for columns in zip(held_out.T, new.T, strict=True)]
    return min(1.0, min(values) * len(values))
