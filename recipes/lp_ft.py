"""LP-FT: linear probing, then fine-tuning (Kumar et al. 2022), against fine-tuning from random heads.

In the first steps, random heads send large and uninformative gradients into the pretrained network. Solved heads do
not, so LP-FT preserves the features. It tends to win where test images differ from the training images.
"""

from transfer import CompareConfig, compare
from transfer.cli.main import script
from transfer.report.console.run_text import comparison_text
from transfer.report.console.tables import text_table


def main(config: CompareConfig) -> None:
    result = compare(config)
    print("\n" + comparison_text(result))
    domains = next(iter(result["runs"].values()))["per_domain"]
    rows = [
        [name, *(f"{run['per_domain'][d]['object'].get('accuracy', float('nan')):.3f}" for d in domains)]
        for name, run in result["runs"].items()
    ]
    print("\n" + text_table(["object accuracy in", *domains], rows))


if __name__ == "__main__":
    raise SystemExit(script(main, CompareConfig(policies=("full", "lp_ft", "linear_probe")), digits="glyphnet"))
