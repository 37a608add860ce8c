"""`transfer demo`: two pretrained networks on embedded images with few labels; no network access.

glyphnet knows letters, EfficientNet-Lite0 knows photographs. A few policies show what each is worth on digits.
"""

from dataclasses import replace

import torch

from transfer.cli.run_folders import RUNS_FOLDER, name_run
from transfer.config.commands import DemoConfig
from transfer.config.train import BackboneConfig, DataConfig, LearnConfig, PolicyConfig, RunConfig, TrainConfig
from transfer.feature_cache import TrunkCache
from transfer.report.console.run_text import comparison_text
from transfer.training.compare import compare_runs
from transfer.training.setup import Images, read_images
from transfer.training.train import TrainRun, train

SOLVED_POLICY = "linear_probe"  # takes no learning rate
SHOTS = 10  # labels per digit and domain
OWN_IMAGES = "my_images"  # stands for the reader's folder in the text
LITE0_IMAGE_SIZE = 96  # pixels; at 224 its features take five times as long
RUNS = (
    ("glyphnet", SOLVED_POLICY),
    ("glyphnet", "partial:2"),
    ("glyphnet", "full"),
    ("glyphnet", "scratch"),
    ("tf_efficientnet_lite0", SOLVED_POLICY),
)
"""Backbones and policies of the table; the first is compared with all others."""

REPORT = """
The images are digits of three kinds: scanned, printed, and blended into photographs. Each network predicts two things:
the digit (object) and the kind of image (domain). It has {labelled} labelled images, ten per digit and kind.
The figures are accuracies on {test} other images, with 95 % intervals. Guessing would have 0.1 and 0.33.

{table}

glyphnet was pretrained on letters, tf_efficientnet_lite0 on ImageNet's photographs; neither has seen a digit before.
  linear_probe  the pretrained network stays as it is; only a linear layer on its features is trained
  partial:2     the last two stages are trained too
  full          all of it is trained
  scratch       all of it is trained, from random weights instead of pretrained ones

What the table shows:
  1. Pretraining replaces labels. Of the digits, scratch recognises {scratch:.3f}, the probe on glyphnet {probe:.3f}.
  2. It matters what the network was pretrained on. For digits, photographs help less than letters ({lite0:.3f}).
  3. For domains it is the other way round ({lite0_domain:.3f}). A letter is the same letter on any background, so
     glyphnet's features ignore the background ({probe_domain:.3f}), unless its layers are trained.
For your own photographs tf_efficientnet_lite0 is the default. `transfer advise {folder}` recommends a policy.
The demo saves nothing.

Next:
  transfer train {folder}     your own images, in {folder}/class/*.jpg; the model is saved in
                              {run}
  transfer predict {run} photo.jpg
                              its prediction for another image
  transfer backbones          other pretrained networks
  transfer data office31      a set to try: 31 objects in three domains, 4,110 photographs"""


def demo(config: DemoConfig) -> str:
    """Train dual heads under the policies of :data:`RUNS` with few labels; return the text to print."""
    base = TrainConfig(
        data=DataConfig(data="digits", test=0.5, shots=SHOTS),
        run=RunConfig(seed=config.seed),
    )
    images, cache = read_images(base.data), TrunkCache(base.cache)
    runs = {f"{backbone} {policy}": _train(base, backbone, policy, images, cache) for backbone, policy in RUNS}
    return report(runs)


def _train(base: TrainConfig, backbone: str, policy: str, images: Images, cache: TrunkCache) -> TrainRun:
    lite0 = backbone != "glyphnet"
    network = BackboneConfig(backbone, image_size=LITE0_IMAGE_SIZE if lite0 else None)
    threads = torch.get_num_threads()
    torch.set_num_threads(threads if lite0 else 1)  # a second thread is slower on images as small as glyphnet's
    try:
        config = replace(base, backbone=network, policy=PolicyConfig(policy))
        if policy != SOLVED_POLICY:  # small networks on small images need larger steps
            learn = LearnConfig(epochs=20, batch_size=32, lr=5e-3)
            pretrained = PolicyConfig(policy, backbone_lr=0.3)
            config = replace(config, policy=PolicyConfig(policy) if policy == "scratch" else pretrained, learn=learn)
        return train(config, images=images, cache=cache)
    finally:
        torch.set_num_threads(threads)


def report(runs: dict[str, TrainRun]) -> str:
    """Return the text of the demo; `runs` are those of :data:`RUNS`, by backbone and policy."""
    first, *others = runs
    results = {name: run.result for name, run in runs.items()}
    paired = {name: compare_runs(runs[name], runs[first]) for name in others}
    table = comparison_text({"runs": results, "paired": paired, "against": first})
    score = {(name, head): run["test"][head]["accuracy"] for name, run in results.items() for head in run["test"]}
    last = list(runs)[-1]
    return REPORT.format(
        table=table,
        folder=OWN_IMAGES,
        run=RUNS_FOLDER / name_run(TrainConfig(DataConfig(OWN_IMAGES))),
        labelled=results[first]["images"]["train"] + results[first]["images"]["val"],
        test=f"{results[first]['images']['test']:,}",
        scratch=score["glyphnet scratch", "object"],
        probe=score[first, "object"],
        lite0=score[last, "object"],
        probe_domain=score[first, "domain"],
        lite0_domain=score[last, "domain"],
    )
