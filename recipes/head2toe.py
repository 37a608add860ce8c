"""Head2Toe (Evci et al. 2022): a linear probe on features selected from all stages of the frozen network.

The features of the last stage fit the pretraining images; lower stages may separate other images better. For each head
a group lasso ranks the features, validation images choose how many are selected, and the head is solved on them. The
table shows the stages they come from. The comparison is with the last stage (linear_probe), the stage below it
(truncate:1), and the mean of probes on each stage (stage_probes).
"""

from transfer import CompareConfig, compare
from transfer.cli.main import script
from transfer.report.console.run_text import comparison_text
from transfer.report.console.tables import text_table


def main(config: CompareConfig) -> None:
    result = compare(config)
    print("\n" + comparison_text(result) + "\n")
    for policy, run in result["runs"].items():
        rows = [
            [head, f"{selected['percent']:g} %", *map(str, selected["features"].values())]
            for head, selected in run["policy"].get("kept", {}).items()
            if run["policy"]["phases"][0]["percents"]
        ]
        if rows:
            stages = next(iter(run["policy"]["kept"].values()))["features"]
            print(text_table([f"features selected by {policy}", "share", *stages], rows))


if __name__ == "__main__":
    raise SystemExit(script(main, CompareConfig(policies=("linear_probe", "truncate:1", "head2toe", "stage_probes"))))
