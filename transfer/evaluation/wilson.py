"""How sure a share of so many draws is."""

NORMAL = 1.959963984540054  # standard deviations on either side that hold 95 %


def wilson(share: float, n: float, width: float = NORMAL) -> tuple[float, float]:
    """Return the interval of a share of `n` draws (Wilson 1927): within [0, 1], and with width where none is wrong.

    Parameters
    ----------
    width : float
        Standard deviations of a normal on either side; by default for 95 %.

    Examples
    --------
    >>> [round(end, 3) for end in wilson(0.5, 10)], [round(end, 3) for end in wilson(1.0, 20)]
    ([0.237, 0.763], [0.839, 1.0])
    """
    middle, scale = share + width**2 / (2 * n), 1 + width**2 / n
    half = width * (share * (1 - share) / n + width**2 / (4 * n * n)) ** 0.5
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)
