"""Gradual unfreezing (Howard and Ruder 2018): train the heads first, then unfreeze one stage at a time from the top.

The plan printed at the start has a column per phase. The table has the validation accuracy after each phase.
"""

from transfer import PolicyConfig, TrainConfig, train
from transfer.cli.main import script
from transfer.report.console.run_text import run_text
from transfer.report.console.tables import text_table


def main(config: TrainConfig) -> None:
    phases: dict[str, list[str]] = {}

    run = train(
        config,
        on_epoch=lambda line: phases.update({line["phase"]: [f"{v:.3f}" for v in line.get("val", {}).values()]}),
    )
    print(
        "\n"
        + text_table(
            ["after phase", *(f"val {name}" for name in run.result["test"])],
            [[k, *v] for k, v in phases.items()],
        )
    )
    print("\n" + run_text(run.result))


if __name__ == "__main__":
    raise SystemExit(script(main, TrainConfig(policy=PolicyConfig("gradual:3")), digits="glyphnet"))
