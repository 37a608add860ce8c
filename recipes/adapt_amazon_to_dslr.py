"""Amazon's product pictures have labels, dslr's photographs have none: how far does each kind of method carry?

Source-only, a closed form, an adversary, self-training and this tool's default, each with a probe on frozen
features (seconds), a trained tail (minutes) and the whole network (an hour on a few cores: --policies linear_probe
leaves it out). No target label is used before the last column, the oracle's, which nobody has in use.
"""

from studies.adaptation_grid import GridConfig, grid_text, run_grid

from transfer.adaptation import AdaptConfig, ShiftConfig
from transfer.cli.main import script
from transfer.config.train import BackboneConfig


def main(config: GridConfig) -> None:
    print("\n" + grid_text(run_grid(config)))


if __name__ == "__main__":
    shared = AdaptConfig(ShiftConfig("office31", ("amazon",), "dslr"), backbone=BackboneConfig("mobilenetv2_100"))
    raise SystemExit(script(main, GridConfig(shared, policies=("linear_probe", "partial:2", "full"))))
