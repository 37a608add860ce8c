"""Surgical fine-tuning (Lee et al. 2023): which third of the network should learn?

Their finding: the first layers for changes of the input (noise, blur, another camera), the last ones for changes of
the labels. Try it on sets of your own; the paired test says whether a difference is real.
"""

from transfer import CompareConfig, compare
from transfer.cli.main import script
from transfer.report.text import comparison_text


def main(config: CompareConfig) -> None:
    print("\n" + comparison_text(compare(config)))


if __name__ == "__main__":
    policies = ("linear_probe", "surgical:first", "surgical:middle", "surgical:last")
    raise SystemExit(script(main, CompareConfig(policies=policies)))
