"""Transfer or scratch?"""

from transfer import LearnConfig, PolicyConfig, TrainConfig
from transfer.cli import script
from transfer.commands import WorthConfig
from transfer.learn.worth import worth
from transfer.report.worth import by_labels_and_time, by_start, draw


def main(config: WorthConfig) -> None:
    result, out = worth(config), config.train.run.out
    print(f"\n{by_labels_and_time(result)}\n\n{by_start(result)}")
    if out:
        draw(out / "curves.png", result)


if __name__ == "__main__":
    # The rates of `transfer demo`: a small network on small images bears, and needs, larger steps.
    learn = LearnConfig(epochs=20, batch_size=32, lr=5e-3, refit=False, patience=0)
    raise SystemExit(script(main, WorthConfig(TrainConfig(policy=PolicyConfig(backbone_lr=0.3), learn=learn))))
