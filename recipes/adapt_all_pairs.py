"""Adaptation on every ordered pair of domains: source-only, standardised domains, MCC, and the default method, auto.

This is the usual Office-31 table with one difference: epoch and method are selected without target labels. The column
"oracle" has the best accuracy that selection by target labels could reach.
"""

from studies.adaptation_grid import GridConfig, grid_text, run_grid

from transfer.adaptation import AdaptConfig, ShiftConfig
from transfer.cli.main import script


def main(config: GridConfig) -> None:
    print("\n" + grid_text(run_grid(config)))


if __name__ == "__main__":
    shared = AdaptConfig(ShiftConfig("office31"))
    raise SystemExit(script(main, GridConfig(shared, ("source_only", "standardise", "mcc", "auto"))))
