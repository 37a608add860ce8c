"""What of a run the rule heeds: how many images it is about, and what its options leave open."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Asked:
    """What of a run the rule heeds.

    Parameters
    ----------
    looks : int
        Images, each view of one counted, that the frozen network is run over once.
    total, tested : int
        Images of the set, and those kept for testing.
    solved : bool
        Whether heads can be solved, which those on the features of all stages must be.
    learns : tuple of str
        Options that say nothing of a backbone that stays frozen, which is then no choice.
    balanced : bool
        Whether class imbalance is met already.
    networks : int
        That learn: one for each head where these are separate.
    fresh : int
        Epochs in which trained heads see views that are drawn anew, and the frozen network runs over them again.
    """

    looks: int
    total: int = 0
    tested: int = 0
    solved: bool = True
    learns: tuple[str, ...] = ()
    balanced: bool = False
    networks: int = 1
    fresh: int = 0
