"""Full fine-tuning: every layer is trained, the heads at the highest learning rate and the lowest stages at the lowest.

The second row uses equal rates for all layers. With few labels, layer-wise rates preserve more of the pretraining.
"""

from dataclasses import replace

from transfer import PolicyConfig, TrainConfig, train
from transfer.cli.main import script
from transfer.report.console.tables import text_table
from transfer.runs.seeds import score_text


def main(config: TrainConfig) -> None:
    rows = []
    settings = {
        "layer-wise rates": config.policy,
        "equal rates": replace(config.policy, backbone_lr=1.0, layer_decay=1.0),
    }
    for name, policy in settings.items():
        out = config.run.out / name.replace(" ", "_") if config.run.out else None
        run = train(replace(config, policy=policy, run=replace(config.run, out=out)))
        rows.append([name, score_text(run.result, "object"), score_text(run.result, "domain")])
    print("\n" + text_table(["full fine-tuning", "object", "domain"], rows))


if __name__ == "__main__":
    raise SystemExit(script(main, TrainConfig(policy=PolicyConfig("full")), digits="glyphnet"))
