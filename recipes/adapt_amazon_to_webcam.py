"""From amazon's labelled product pictures to webcam's unlabelled frames: the larger target, the poorer camera.

The same methods and policies as adapt_amazon_to_dslr.py; more target images make self-training and `auto` steadier.
"""

from studies.adaptation_grid import GridConfig, grid_text, run_grid

from transfer.adaptation import AdaptConfig, ShiftConfig
from transfer.cli.main import script
from transfer.config.train import BackboneConfig


def main(config: GridConfig) -> None:
    print("\n" + grid_text(run_grid(config)))


if __name__ == "__main__":
    shared = AdaptConfig(ShiftConfig("office31", ("amazon",), "webcam"), backbone=BackboneConfig("mobilenetv2_100"))
    raise SystemExit(script(main, GridConfig(shared, policies=("linear_probe", "partial:2", "full"))))
