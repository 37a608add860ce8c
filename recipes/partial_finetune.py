"""Partial fine-tuning: how many stages from the top should learn?

Trains the last one, two and three stages. Below the lowest of them the network runs once; each epoch costs only what
learns. Lower stages learn at lower rates: look at the printed plans.
"""

from transfer import CompareConfig, compare
from transfer.cli.main import script
from transfer.report.text import comparison_text


def main(config: CompareConfig) -> None:
    print("\n" + comparison_text(compare(config)))


if __name__ == "__main__":
    raise SystemExit(script(main, CompareConfig(policies=("linear_probe", "partial:1", "partial:2", "partial:3"))))
