"""Surgical fine-tuning (Lee et al. 2023): which third of the network should be trained?

The paper finds the first layers best for changes of the input (noise, blur, another camera) and the last layers best
for changes of the labels. The paired test shows whether a difference is significant on your data.
"""

from transfer import CompareConfig, compare
from transfer.cli.main import script
from transfer.report.console.run_text import comparison_text


def main(config: CompareConfig) -> None:
    print("\n" + comparison_text(compare(config)))


if __name__ == "__main__":
    policies = ("linear_probe", "surgical:first", "surgical:middle", "surgical:last")
    raise SystemExit(script(main, CompareConfig(policies=policies), digits="glyphnet"))
