"""Training from scratch: the same network from random weights, at growing numbers of labels.

Compare the rows: how many labels does scratch need for the accuracy that a linear probe has with few?
"""

from dataclasses import replace

from transfer import TrainConfig, train
from transfer.cli.main import script
from transfer.report.console.tables import text_table
from transfer.runs.seeds import score_text


def main(config: TrainConfig) -> None:
    rows = []
    for shots in (5, 20, None):
        row = [str(shots or "all")]
        for policy in ("linear_probe", "scratch"):
            new_policy = replace(config.policy, policy=policy)
            run_config = replace(config, data=replace(config.data, shots=shots), policy=new_policy)
            out = config.run.out / f"{policy}_{row[0]}" if config.run.out else None
            row.append(score_text(train(replace(run_config, run=replace(config.run, out=out))).result, "object"))
        rows.append(row)
    print("\n" + text_table(["labels per class and domain", "linear_probe", "scratch"], rows))


if __name__ == "__main__":
    raise SystemExit(script(main, TrainConfig(), digits="glyphnet"))
