"""The strategies by name. Imports no torch: the help texts need them."""

import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from transfer.errors import TransferError, did_you_mean

if TYPE_CHECKING:
    from transfer.curation.picking.pool import Choice, Pool


@dataclass(frozen=True)
class PickingStrategy:
    """A rule by which images are chosen.

    Parameters
    ----------
    place : str
        Module in this folder and name of a function. It gets a pool and a number n of at most its candidates, and
        returns n candidates, those that matter most first.
    summary : str
        For help texts.
    needs_labels : bool
        Whether two classes must have a label.
    """

    place: str
    summary: str
    needs_labels: bool = False

    def load(self) -> Callable[["Pool", int], list["Choice"]]:
        """Return the function."""
        found: Callable[[Pool, int], list[Choice]] = pkgutil.resolve_name(f"{__package__}.{self.place}")
        return found


STRATEGIES = {
    "auto": PickingStrategy(
        "herding:choose_by_graph_herding", "uncertainty_herding along the graph of nearest neighbours"
    ),
    "typiclust": PickingStrategy("typiclust:choose_typical", "typical images of clusters (Hacohen et al. 2022)"),
    "probcover": PickingStrategy(
        "probcover:choose_covering_balls", "balls that cover most images (Yehuda et al. 2022)"
    ),
    "maxherding": PickingStrategy("herding:choose_by_max_herding", "similar to most images (Bae et al. 2024)"),
    "uncertainty_herding": PickingStrategy(
        "herding:choose_by_uncertainty_herding", "similar to most uncertain images (Bae et al. 2025)"
    ),
    "margin": PickingStrategy(
        "uncertainty:choose_smallest_margins", "two classes nearly equally likely (Scheffer et al. 2001)", True
    ),
    "entropy": PickingStrategy(
        "uncertainty:choose_highest_entropies", "probabilities of the highest entropy (Shannon 1948)", True
    ),
    "badge": PickingStrategy("badge:choose_diverse_gradients", "diverse gradients of the loss (Ash et al. 2020)", True),
    "random": PickingStrategy("uncertainty:choose_randomly", "a random sample, to compare with"),
}


def find_strategy(name: str) -> PickingStrategy:
    """Return the strategy of this name.

    Raises
    ------
    TransferError
        There is none.
    """
    if name not in STRATEGIES:
        near = did_you_mean(name, STRATEGIES)
        raise TransferError(f"unknown strategy {name!r}{near}; known: {', '.join(STRATEGIES)}")
    return STRATEGIES[name]


def summarise_strategies() -> dict[str, str]:
    """Return what each strategy chooses, by its name."""
    return {name: strategy.summary for name, strategy in STRATEGIES.items()}
