"""Linear probe: the pretrained network is frozen; only linear heads on its features are trained.

It is the cheapest policy, the least likely to overfit, and the baseline for every other one. The frozen network
processes each image once; training uses its cached features.
"""

from transfer import PolicyConfig, TrainConfig, train
from transfer.cli.main import script
from transfer.report.console.run_text import run_text


def main(config: TrainConfig) -> None:
    run = train(config)
    print("\n" + run_text(run.result))
    seconds = run.result["seconds"]
    print(f"\nthe frozen network took {seconds['trunk']:.1f} s, training the heads {seconds['train']:.1f} s")


if __name__ == "__main__":
    raise SystemExit(script(main, TrainConfig(policy=PolicyConfig("linear_probe"))))
