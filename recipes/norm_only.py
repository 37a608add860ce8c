"""Norm-only tuning: scales and shifts of the normalisation layers learn, and nothing else but the heads.

Often under 2 % of the parameters (Frankle et al. 2021). Beside it the same with running statistics held still: how
much of the gain is the affine parameters, and how much is only seeing the new images' statistics?
"""

from dataclasses import replace

from transfer import PolicyConfig, TrainConfig, train
from transfer.cli.main import script
from transfer.report.text import score_text, text_table


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
    raise SystemExit(script(main, TrainConfig(policy=PolicyConfig("norm_only", backbone_lr=1.0, layer_decay=1.0))))
