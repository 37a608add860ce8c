"""Full fine-tuning: every layer learns, the heads fastest, the lowest stages slowest.

Beside it the same with one rate for all layers: with few labels, rates that fall towards the bottom keep more of what
the network knows.
"""

from dataclasses import replace

from transfer import PolicyConfig, TrainConfig, train
from transfer.cli.main import script
from transfer.report.text import score_text, text_table


def main(config: TrainConfig) -> None:
    rows = []
    settings = {
        "falling rates": config.policy,
        "one rate": replace(config.policy, backbone_lr=1.0, layer_decay=1.0),
    }
    for name, policy in settings.items():
        out = config.run.out / name.replace(" ", "_") if config.run.out else None
        run = train(replace(config, policy=policy, run=replace(config.run, out=out)))
        rows.append([name, score_text(run.result, "object"), score_text(run.result, "domain")])
    print("\n" + text_table(["full fine-tuning", "object", "domain"], rows))


if __name__ == "__main__":
    raise SystemExit(script(main, TrainConfig(policy=PolicyConfig("full"))))
