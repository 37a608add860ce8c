"""Adaptation from amazon's labelled product images to webcam's unlabelled frames.

The methods and policies are those of adapt_amazon_to_dslr.py. webcam has more images of lower quality; more target
images make self-training and `auto` more stable.
"""

from studies.adaptation_grid import GridConfig, grid_text, run_grid

from transfer.adaptation import AdaptConfig, ShiftConfig
from transfer.cli.main import script


def main(config: GridConfig) -> None:
    print("\n" + grid_text(run_grid(config)))


if __name__ == "__main__":
    shared = AdaptConfig(ShiftConfig("office31", ("amazon",), "webcam"))
    raise SystemExit(script(main, GridConfig(shared, policies=("linear_probe", "partial:2", "full"))))
