"""`transfer demo`: embedded data, the bundled backbone, no network; what transfer is worth with few labels."""

import torch

from transfer.config.commands import DemoConfig
from transfer.config.train import CompareConfig, DataConfig, LearnConfig, PolicyConfig, RunConfig, TrainConfig
from transfer.report.text import comparison_text
from transfer.training.compare import compare

SHOTS = 10

SAY = """
Three domains (scanned, blended, printed digits), ten labels per digit and domain, the rest held out for testing.
glyphnet learned letters, never digits; scratch is the same network without that. Look at both columns: reading digits
is what letters taught it; telling domains apart (paper, print, photograph) is what it learned to look past, so that
probing, which must do with its features, is behind a network that may learn new ones.

{table}

Next:
  transfer train --data digits --policy lp_ft --out runs/digits      a run folder with the model in it
  transfer train --data FOLDER --backbone mobilenetv2_100            your own images (FOLDER/class/*.jpg)
  transfer backbones 'resnet*'                                       other pretrained backbones
  transfer data office31                                             31 objects in three domains, 4,110 photographs"""


def demo(config: DemoConfig) -> str:
    """Train dual heads under four policies with few labels and return the table to print."""
    torch.set_num_threads(1)  # on images this small a second thread costs more than it gives
    result = compare(
        CompareConfig(
            train=TrainConfig(
                data=DataConfig(data="digits", test=0.5, shots=SHOTS),
                policy=PolicyConfig(backbone_lr=0.3),  # a small network on small images bears, and needs, larger steps
                learn=LearnConfig(epochs=20, batch_size=32, lr=5e-3),
                run=RunConfig(seed=config.seed),
            ),
            policies=("linear_probe", "partial:2", "full", "scratch"),
        )
    )
    return SAY.format(table=comparison_text(result))
