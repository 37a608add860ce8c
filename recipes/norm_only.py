"""Norm-only tuning (Frankle et al. 2021): only the scales and shifts of the norm layers and the heads are trained.

They are often under 2 % of the parameters. The second row freezes the running statistics as well: how much of the gain
comes from the affine parameters, and how much from the statistics of the new images?
"""

from dataclasses import replace

from transfer import PolicyConfig, TrainConfig, train
from transfer.cli.main import script
from transfer.report.console.tables import text_table
from transfer.runs.seeds import score_text


def main(config: TrainConfig) -> None:
    rows = []
    for statistics in ("learning", "frozen"):
        out = config.run.out / statistics if config.run.out else None
        policy = replace(config.policy, statistics=statistics)
        run = train(replace(config, policy=policy, run=replace(config.run, out=out)))
        trained = f"{run.result['policy']['trained_parameters']:,}"
        rows.append([statistics, score_text(run.result, "object"), score_text(run.result, "domain"), trained])
    print("\n" + text_table(["norm statistics", "object", "domain", "trained parameters"], rows))


if __name__ == "__main__":
    raise SystemExit(
        script(main, TrainConfig(policy=PolicyConfig("norm_only", backbone_lr=1.0, layer_decay=1.0)), digits="glyphnet")
    )
