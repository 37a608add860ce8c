"""Do these images differ from those of the training set? The outputs of the model tell."""

import numpy as np


def compare_outputs(known: np.ndarray, new: np.ndarray) -> float:
    """Return the p-value of equal distributions of the probabilities `known` (M, classes) and `new` (N, classes).

    Two-sample Kolmogorov-Smirnov tests of each class's probability and of the largest one, with Bonferroni's correction
    (BBSD, Rabanser et al. 2019). Other class proportions are a difference, too.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> known, same, other = (rng.dirichlet(weights, 200) for weights in ([1, 1, 1], [1, 1, 1], [3, 1, 1]))
    >>> compare_outputs(known, same) > 0.05, compare_outputs(known, other) < 1e-6
    (True, True)
    """
    from scipy.stats import ks_2samp  # takes long to import, and few commands come here

    pairs = [*zip(known.T, new.T, strict=True), (known.max(1), new.max(1))]
    return min(1.0, len(pairs) * min(float(ks_2samp(*pair, method="asymp").pvalue) for pair in pairs))
