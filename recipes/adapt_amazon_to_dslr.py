"""Amazon's product pictures have labels, dslr's photographs have none: how far does each kind of method carry?

Source-only, a closed form, an adversary, self-training and this tool's default, crossed with a probe on frozen
features (seconds), a trained tail (minutes) and the whole network (an hour on a few cores: --policies linear_probe
leaves it out). No target label is used before the last column, the oracle's, which nobody has in use.
"""

from dataclasses import dataclass, field

from transfer.adapt.config import AdaptConfig, ShiftConfig
from transfer.adapt.cross import cross
from transfer.cli import script
from transfer.config import BackboneConfig, CommaNames
from transfer.report.tables import crossed

PAIR = ShiftConfig("office31", ("amazon",), "dslr")


@dataclass(frozen=True)
class Recipe:
    """What all runs share, and what is crossed."""

    adapt: AdaptConfig = field(default_factory=lambda: AdaptConfig(PAIR, backbone=BackboneConfig("mobilenetv2_100")))
    methods: CommaNames = ("source_only", "coral", "dann", "growing", "auto")
    policies: CommaNames = ("linear_probe", "partial:2", "full")


def main(recipe: Recipe) -> None:
    pair = (",".join(recipe.adapt.shift.source), recipe.adapt.shift.target)
    print("\n" + crossed(cross(recipe.adapt, methods=recipe.methods, policies=recipe.policies, pairs=[pair])))


if __name__ == "__main__":
    raise SystemExit(script(main, Recipe()))
