"""Partial fine-tuning: how many stages from the top should be trained?

Trains the last one, two and three stages. The stages below process each image once, so an epoch costs only the trained
part. Lower stages have lower learning rates, as the printed plans show.
"""

from transfer import CompareConfig, compare
from transfer.cli.main import script
from transfer.report.console.run_text import comparison_text


def main(config: CompareConfig) -> None:
    print("\n" + comparison_text(compare(config)))


if __name__ == "__main__":
    raise SystemExit(
        script(main, CompareConfig(policies=("linear_probe", "partial:1", "partial:2", "partial:3")), digits="glyphnet")
    )
