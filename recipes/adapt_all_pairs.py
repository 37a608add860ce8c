"""Every ordered pair of domains: source-only, each domain standardised, and this tool's default.

The table that papers on Office-31 print, with one difference: epoch and method are chosen without target labels. The
best that could have been chosen with them is the column called oracle.
"""

from dataclasses import dataclass, field

from transfer.adapt.config import AdaptConfig, ShiftConfig
from transfer.adapt.cross import cross
from transfer.cli import script
from transfer.config import BackboneConfig, CommaNames
from transfer.report.tables import crossed

SET = ShiftConfig("office31")


@dataclass(frozen=True)
class Recipe:
    """What all runs share, and what is crossed."""

    adapt: AdaptConfig = field(default_factory=lambda: AdaptConfig(SET, backbone=BackboneConfig("mobilenetv2_100")))
    methods: CommaNames = ("source_only", "standardise", "mcc", "auto")
    policies: CommaNames = ("linear_probe",)


def main(recipe: Recipe) -> None:
    print("\n" + crossed(cross(recipe.adapt, methods=recipe.methods, policies=recipe.policies)))


if __name__ == "__main__":
    raise SystemExit(script(main, Recipe()))
