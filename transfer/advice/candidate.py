"""A policy, and what is to be expected of it."""

from dataclasses import dataclass

from transfer.heads.metrics import Z_95

WORTH = 0.0075  # what fine-tuning must be expected to add to be worth its time
AHEAD = 0.005  # what a policy must be expected to be better by than the mean of several, not to give way to it


@dataclass(frozen=True)
class Candidate:
    """A policy, and what is to be expected of it.

    Parameters
    ----------
    accuracy, sd : float
        Of the objects of new images, as a fraction, and its standard deviation.
    measured : bool
        By cross-validation, rather than expected from other sets.
    trained : int
        Parameters of the backbone that learn.
    head : int
        Parameters of a linear head for the objects on the features that the policy has.
    epochs : int
        0 where all is solved.
    seconds : float
        Here, with one seed.
    """

    policy: str
    accuracy: float
    sd: float
    measured: bool
    trained: int
    head: int
    epochs: int
    seconds: float

    @property
    def interval(self) -> tuple[float, float]:
        """The middle 95 %."""
        return max(self.accuracy - Z_95 * self.sd, 0.0), min(self.accuracy + Z_95 * self.sd, 1.0)


def lasting(seconds: float) -> str:
    """Return a time for people.

    Examples
    --------
    >>> lasting(4.2), lasting(300), lasting(9000)
    ('4 s', '5 min', '2.5 h')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
