"""Label efficiency: how many labels, and how many seconds, does pretraining save?

The first table has each policy's test accuracy with 1 to all labels per class and domain. With the most labels it also
has the seconds until the validation accuracy first equals that of training from scratch at its end (for detection, He
et al. 2019 report 2 to 3 times). The second table compares with LP-FT: random heads, the highest layers first, the
lowest first. A run returns its best weights by validation accuracy, solved heads included, which hides damage by later
phases. Without validation images (one label, or --val 0) it returns those of the last epoch.

Scratch has its own learning rate and epochs. On digits with 5 labels (one seed, test images), 30, 100 and 300 epochs at
5e-3 reach 0.39, 0.41 and 0.41; 100 epochs at 2e-3, 5e-3 and 1e-2 reach 0.38, 0.41 and 0.44.

The rates are for digits and glyphnet. Photographs at a size for a laptop:
--data office31 --backbone mobilenetv2_100 --lr 3e-3 --backbone-lr 0.1 --scratch-lr 2e-3 --image-size 96
--label-counts 1,4 --epochs 6 --scratch-epochs 24

Without the last four options the images are whole and all labels are used, which needs a GPU. --seeds 0,1,2 gives mean
and standard deviation.
"""

from studies.label_efficiency import LabelEfficiencyConfig, run_label_efficiency
from studies.label_efficiency_text import draw_label_efficiency, labels_and_time_text, starts_text

from transfer import LearnConfig, PolicyConfig, TrainConfig
from transfer.cli.main import script


def main(config: LabelEfficiencyConfig) -> None:
    result, out = run_label_efficiency(config), config.train.run.out
    print(f"\n{labels_and_time_text(result)}\n\n{starts_text(result)}")
    if out:
        draw_label_efficiency(out / "curves.png", result)


if __name__ == "__main__":
    # The rates of `transfer demo`: a small network on small images tolerates, and needs, larger steps.
    learn = LearnConfig(epochs=20, batch_size=32, lr=5e-3, refit=False, patience=0)
    train_config = TrainConfig(policy=PolicyConfig(backbone_lr=0.3), learn=learn)
    raise SystemExit(script(main, LabelEfficiencyConfig(train_config), digits="glyphnet"))
