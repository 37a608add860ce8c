"""Linear probe: the pretrained network stays as it is; only linear heads on its features learn.

The cheapest policy, the hardest to overfit, and the number that every other policy has to beat. The frozen network
runs once over the images; all epochs then work on what it put out.
"""

from transfer import PolicyConfig, TrainConfig, train
from transfer.cli.main import script
from transfer.report.text import run_text


def main(config: TrainConfig) -> None:
    run = train(config)
    print("\n" + run_text(run.result))
    seconds = run.result["seconds"]
    print(f"\nthe frozen network took {seconds['trunk']:.1f} s, all the rest {seconds['train']:.1f} s")


if __name__ == "__main__":
    raise SystemExit(script(main, TrainConfig(policy=PolicyConfig("linear_probe"))))
