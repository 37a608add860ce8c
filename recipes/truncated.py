"""Truncated networks: how much of the network do these images need?

Drops the last one and two stages and learns heads on what remains; then with the new last stage learning too (lp_ft),
or everything from random weights. Upper stages know the images of pretraining best: the less alike these images are,
the less is lost without them, and what is dropped costs neither time nor memory.
"""

from transfer import CompareConfig, compare
from transfer.cli.main import script
from transfer.report.text import comparison_text

POLICIES = ("linear_probe", "truncate:1", "truncate:2", "truncate:2+lp_ft:1", "truncate:2+scratch")


def main(config: CompareConfig) -> None:
    result = compare(config)
    print("\n" + comparison_text(result))
    for policy, run in result["runs"].items():
        dropped = ", ".join(run["policy"].get("dropped", ())) or "none"
        print(f"{policy}: stages dropped: {dropped}; {run['backbone']['width']} features")


if __name__ == "__main__":
    raise SystemExit(script(main, CompareConfig(policies=POLICIES)))
