"""Sensitivity of `auto` to its constants: each at half and at double its value.

Class shares are equal or thinned out in the target. Every pair of domains is adapted with a frozen
backbone. Networks are trained again only for constants that change them.
"""

from studies.constants import SensitivityConfig, run_sensitivity, sensitivity_text

from transfer.adaptation import AdaptConfig, ShiftConfig
from transfer.cli.main import script


def main(config: SensitivityConfig) -> None:
    print("\n" + sensitivity_text(run_sensitivity(config)))


if __name__ == "__main__":
    raise SystemExit(script(main, SensitivityConfig(AdaptConfig(ShiftConfig("office31")))))
