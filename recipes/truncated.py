"""Truncated networks: how much of the network do these images need?

Removes the last one and two stages and trains heads on the remaining ones. Then also fine-tunes the new last stage
(lp_ft), or trains everything from random weights. Upper stages are the most specific to the pretraining images: the
less similar your images are, the less is lost without them, and the removed stages cost neither time nor memory.
"""

from transfer import CompareConfig, compare
from transfer.cli.main import script
from transfer.report.console.run_text import comparison_text

POLICIES = ("linear_probe", "truncate:1", "truncate:2", "truncate:2+lp_ft:1", "truncate:2+scratch")


def main(config: CompareConfig) -> None:
    result = compare(config)
    print("\n" + comparison_text(result))
    for policy, run in result["runs"].items():
        dropped = ", ".join(run["policy"].get("dropped", ())) or "none"
        print(f"{policy}: stages dropped: {dropped}; {run['backbone']['width']} features")


if __name__ == "__main__":
    raise SystemExit(script(main, CompareConfig(policies=POLICIES), digits="glyphnet"))
