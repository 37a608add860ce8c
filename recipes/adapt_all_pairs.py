"""Every ordered pair of domains: source-only, each domain standardised, class confusion, and this tool's default.

The table that papers on Office-31 print, with one difference: epoch and method are chosen without target labels. The
best that could have been chosen with them is the column called oracle.
"""

from studies.adaptation_grid import GridConfig, grid_text, run_grid

from transfer.adaptation import AdaptConfig, ShiftConfig
from transfer.cli.main import script
from transfer.config.train import BackboneConfig


def main(config: GridConfig) -> None:
    print("\n" + grid_text(run_grid(config)))


if __name__ == "__main__":
    shared = AdaptConfig(ShiftConfig("office31"), backbone=BackboneConfig("mobilenetv2_100"))
    raise SystemExit(script(main, GridConfig(shared, ("source_only", "standardise", "mcc", "auto"))))
