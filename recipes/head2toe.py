"""Head2Toe: a linear probe on features selected from all stages of the frozen network.

The last stage's features are made for the images of pretraining; what tells other images apart may lie lower down. Each
head keeps those that a group lasso finds relevant, as many as validation images ask for, and is solved on them. Look at
which stages it takes them from, and whether that beats the last one (linear_probe), the one below it (truncate:1), or
the mean of probes on each of them (stage_probes).
"""

from transfer import CompareConfig, compare
from transfer.cli.main import script
from transfer.report.text import comparison_text, text_table


def main(config: CompareConfig) -> None:
    result = compare(config)
    print("\n" + comparison_text(result) + "\n")
    for policy, run in result["runs"].items():
        rows = [
            [head, f"{kept['percent']:g} %", *map(str, kept["features"].values())]
            for head, kept in run["policy"].get("kept", {}).items()
            if run["policy"]["phases"][0]["percents"]
        ]
        if rows:
            stages = next(iter(run["policy"]["kept"].values()))["features"]
            print(text_table([f"{policy} keeps", "share", *stages], rows))


if __name__ == "__main__":
    raise SystemExit(script(main, CompareConfig(policies=("linear_probe", "truncate:1", "head2toe", "stage_probes"))))
