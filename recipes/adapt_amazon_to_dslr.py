"""Adaptation from amazon's labelled product images to dslr's unlabelled photographs.

Compares source-only, a closed form, an adversary, self-training and the default method, each with a probe on frozen
features (seconds), two trained stages (minutes) and the whole network (an hour on a few cores; --policies linear_probe
skips it). Target labels are used only for evaluation and for the last column, the oracle.
"""

from studies.adaptation_grid import GridConfig, grid_text, run_grid

from transfer.adaptation import AdaptConfig, ShiftConfig
from transfer.cli.main import script


def main(config: GridConfig) -> None:
    print("\n" + grid_text(run_grid(config)))


if __name__ == "__main__":
    shared = AdaptConfig(ShiftConfig("office31", ("amazon",), "dslr"))
    raise SystemExit(script(main, GridConfig(shared, policies=("linear_probe", "partial:2", "full"))))
