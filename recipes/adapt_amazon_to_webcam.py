"""From amazon's labelled product pictures to webcam's unlabelled frames: the larger target, the poorer camera.

The same methods and policies as adapt_amazon_to_dslr.py; more target images make self-training and `auto` steadier.
"""

from studies.cross import cross

from transfer.adaptation import AdaptConfig, CrossConfig, ShiftConfig
from transfer.cli.main import script
from transfer.config.train import BackboneConfig
from transfer.report.text import crossed


def main(config: CrossConfig) -> None:
    print("\n" + crossed(cross(config)))


if __name__ == "__main__":
    shared = AdaptConfig(ShiftConfig("office31", ("amazon",), "webcam"), backbone=BackboneConfig("mobilenetv2_100"))
    raise SystemExit(script(main, CrossConfig(shared, policies=("linear_probe", "partial:2", "full"))))
