"""`transfer demo`: four policies with few labels, on bundled data and the bundled backbone, without a network."""

import torch

from transfer.config.commands import DemoConfig
from transfer.config.train import (
    BackboneConfig,
    CompareConfig,
    DataConfig,
    LearnConfig,
    PolicyConfig,
    RunConfig,
    TrainConfig,
)
from transfer.report.text import comparison_text
from transfer.training.compare import compare

SHOTS = 10  # labels per digit and domain

REPORT = """
Three domains (scanned, blended, printed digits), ten labels per digit and domain, the rest held out for testing.
glyphnet was pretrained on letters, never on digits; scratch is the same network from random weights. Compare both
columns. Digits are recognised well with features of letters. Domains (paper, print, photograph) are not: pretraining
made the features invariant to them, so a linear probe is behind policies that train the network.

{table}

Next:
  transfer train --data digits --policy lp_ft --out runs/digits      a run folder with the model in it
  transfer train --data FOLDER --backbone mobilenetv2_100            your own images (FOLDER/class/*.jpg)
  transfer backbones 'resnet*'                                       other pretrained backbones
  transfer data office31                                             31 objects in three domains, 4,110 photographs"""


def demo(config: DemoConfig) -> str:
    """Train dual heads under four policies with few labels and return the table to print."""
    torch.set_num_threads(1)  # a second thread is slower on images this small
    result = compare(
        CompareConfig(
            train=TrainConfig(
                data=DataConfig(data="digits", test=0.5, shots=SHOTS),
                backbone=BackboneConfig("glyphnet"),
                policy=PolicyConfig(backbone_lr=0.3),  # small networks on small images need larger steps
                learn=LearnConfig(epochs=20, batch_size=32, lr=5e-3),
                run=RunConfig(seed=config.seed),
            ),
            policies=("linear_probe", "partial:2", "full", "scratch"),
        )
    )
    return REPORT.format(table=comparison_text(result))
