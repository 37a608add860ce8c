"""HeadSpec: what one head predicts, as it is saved in a model's header."""

from dataclasses import dataclass

from transfer.heads.kind import HeadKind
from transfer.heads.registry import find_head_kind


@dataclass(frozen=True)
class HeadSpec:
    """What one head predicts."""

    name: str  # the target's, such as "object"
    kind: str = "softmax"  # the name of a registered head kind
    classes: tuple[str, ...] = ()  # class names by index; empty for numbers
    weight: float = 1.0  # of its loss in the sum over heads
    # Mean and standard deviation of a numeric target on the training rows: the head learns (y - centre) / spread.
    centre: float = 0.0
    spread: float = 1.0
    thresholds: tuple[float, ...] = ()  # of several labels an image, the probability from which on each is predicted

    @property
    def head_kind(self) -> HeadKind:
        """The registered kind called :attr:`kind`."""
        return find_head_kind(self.kind)

    @property
    def outputs(self) -> int:
        """How many numbers the head's last layer computes for each image."""
        return self.head_kind.outputs(self)
