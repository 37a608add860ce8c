"""Transfer or scratch? Accuracy by number of labels and by seconds: how much data and time pretraining is worth.

The first table has every policy's test accuracy with 1 to all labels a class and domain and, with the most labels, the
seconds until it first is as good on the validation images as scratch in the end (for detection, He et al. 2019 report
2 to 3 times). The second holds other starts against LP-FT: heads drawn at random, the highest layers first, the lowest
first. A run keeps the weights that were best on validation images, solved heads among them, which hides what later
phases spoil; where there are none to validate on, with one label or --val 0, the last epoch counts.

Scratch has a rate and epochs of its own. On digits with 5 labels (one seed, test images) 30, 100 and 300 epochs at
5e-3 have 0.39, 0.41 and 0.41; 100 epochs at 2e-3, 5e-3 and 1e-2 have 0.38, 0.41 and 0.44.

The rates are for digits and glyphnet. Photographs at a size for a laptop:
--data office31 --backbone mobilenetv2_100 --lr 3e-3 --backbone-lr 0.1 --scratch-lr 2e-3 --image-size 96 --labels 1,4
--epochs 6 --scratch-epochs 24

Without the last four they are whole and all, which wants a GPU; --seeds 0,1,2 gives mean and standard deviation.
"""

from studies.worth import worth
from studies.worth_text import by_labels_and_time, by_start, draw

from transfer import LearnConfig, PolicyConfig, TrainConfig
from transfer.cli.main import script
from transfer.config.commands import WorthConfig


def main(config: WorthConfig) -> None:
    result, out = worth(config), config.train.run.out
    print(f"\n{by_labels_and_time(result)}\n\n{by_start(result)}")
    if out:
        draw(out / "curves.png", result)


if __name__ == "__main__":
    # The rates of `transfer demo`: a small network on small images bears, and needs, larger steps.
    learn = LearnConfig(epochs=20, batch_size=32, lr=5e-3, refit=False, patience=0)
    raise SystemExit(script(main, WorthConfig(TrainConfig(policy=PolicyConfig(backbone_lr=0.3), learn=learn))))
