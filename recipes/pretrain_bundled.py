"""Pretrain the bundled backbone, `glyphnet`: a small residual CNN, on rendered letters in many styles, never digits.

``python recipes/pretrain_bundled.py`` trains it and writes its weights, in at most 15 minutes on 2 cores. With
``--measure`` it prints how well they transfer to the bundled digits, the table of the model card.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import torch
import tyro
from PIL import Image
from safetensors.torch import load_file, save_file
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from timm.models.resnet import BasicBlock, ResNet
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

import transfer.backbones
from transfer.data.sets import glyphs
from transfer.data.sets.digits import DIGIT_DOMAINS, draw_digits
from transfer.data.sets.glyphs import LETTERS, PRETRAINING, SIZE, Pose
from transfer.runtime.files import atomic_write, write_json

ARCH = {"layers": [2, 2, 2, 1], "channels": [24, 48, 96, 160], "stem_width": 12, "stem_type": "deep"}
MEAN, STD = 0.5, 0.25
FACES = [face for family in PRETRAINING.values() for face in family]


@dataclass
class Options:
    """Options of the pretraining."""

    out: Path = Path(transfer.backbones.__file__).parent / "providers" / "glyphnet"
    images: int = 480_000  # images drawn, each seen once
    batch_size: int = 128
    lr: float = 0.2
    seed: int = 0
    workers: int = 1  # processes that render images, besides the training process
    measure: bool = False  # measure the transfer to `digits` instead of training
    steps: int = 600  # of training from scratch, with --measure


def ground_and_ink(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return a random background, shape (SIZE, SIZE, 3), and an ink colour, (3,) or of the background's shape."""
    ink, paper = glyphs.two_colours(rng, 0.2)
    kind = rng.random()
    if kind < 0.25:
        return np.broadcast_to(paper, (SIZE, SIZE, 3)), ink
    if kind < 0.4:
        return glyphs.gradient(paper, 0.6 * paper + 0.4 * rng.random(3, np.float32), rng), ink
    if kind < 0.55:
        return glyphs.clouds(paper, rng.uniform(0.1, 0.8), rng), ink
    photo = glyphs.photo_patch(rng, "left")
    if kind < 0.75:
        return photo, ink
    return (photo, 1 - photo) if kind < 0.85 else (photo, glyphs.clouds(ink, 0.5, rng))


def letter(index: int, seed: int) -> tuple[Image.Image, int]:
    """Render image number `index` with its label; the seed determines both."""
    rng = np.random.default_rng((seed, index))
    label = int(rng.integers(len(LETTERS)))
    shape = glyphs.template(FACES[rng.integers(len(FACES))], LETTERS[label])
    wobble = rng.uniform(0, 0.05) if rng.random() < 0.6 else 0.0
    ink = glyphs.posed(shape, Pose((0.5, 0.95), 25, 0.3, 0.35, 0.1, wobble), rng)
    if rng.random() < 0.7:
        ink = glyphs.restroked(ink, rng.uniform(0.5, 2.0), rng.uniform(0.1, 0.5), rng.uniform(1.5, 8))
    if rng.random() < 0.2:  # like a dry pen
        ink = ink * np.clip(glyphs.clouds(np.float32(1), 0.9, rng)[..., 0], 0, 1)
    if rng.random() < 0.5:
        ink = glyphs.resampled(ink, int(rng.integers(9, 21)))
        if rng.random() < 0.6:
            ink = glyphs.restroked(ink, 0.8, rng.uniform(0.3, 0.5), rng.uniform(1, 4))
    ground, colour = ground_and_ink(rng)
    values = glyphs.blended(ground, ink) if rng.random() < 0.35 else glyphs.inked(ground, ink, colour)
    return glyphs.picture(values, rng.uniform(0, 0.1) * (rng.random() < 0.5), rng), label


class Letters(Dataset):
    """The first `images` of an endless sequence of rendered letters."""

    def __init__(self, images: int, seed: int) -> None:
        self.images, self.seed = images, seed

    def __len__(self) -> int:
        return self.images

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image, label = letter(index, self.seed)
        return torch.from_numpy(np.array(image)), label


def network(num_classes: int = len(LETTERS)) -> ResNet:
    return ResNet(BasicBlock, num_classes=num_classes, **ARCH)


def prepared(images: torch.Tensor) -> torch.Tensor:
    """uint8 (N, H, W, 3) -> float32 (N, 3, H, W), standardised."""
    return images.permute(0, 3, 1, 2).float().div_(255).sub_(MEAN).div_(STD)


def pretrain(options: Options) -> None:
    torch.set_num_threads(1)  # the other core renders; results are the same on any number of cores
    torch.manual_seed(options.seed)
    model = network().to(memory_format=torch.channels_last).train()
    letters = Letters(options.images, options.seed)
    loader = DataLoader(letters, options.batch_size, num_workers=options.workers, drop_last=True)
    optimizer = torch.optim.SGD(model.parameters(), options.lr, 0.9, weight_decay=5e-5, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, options.lr, total_steps=len(loader), pct_start=0.1, cycle_momentum=False
    )
    start, right = time.perf_counter(), 0.0
    busy = time.process_time()
    for images, labels in (bar := tqdm(loader, unit="batch", disable=None)):
        logits = model(prepared(images))
        loss = F.cross_entropy(logits, labels)  # smoothed labels would make features that transfer less
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        right += 0.02 * ((logits.argmax(1) == labels).float().mean().item() - right)
        bar.set_postfix(accuracy=f"{right:.3f}")
    busy = time.process_time() - busy
    seconds = time.perf_counter() - start
    print(f"{seconds:.0f} s, of them {busy:.0f} learning; {right:.3f} of the last letters drawn were right")
    write(model, options.out)


def write(model: ResNet, out: Path) -> None:
    halves = {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    with atomic_write(out / "glyphnet.safetensors") as temporary:
        save_file({k: v.contiguous() for k, v in halves.items()}, temporary)
    record = {
        "input_size": [3, SIZE, SIZE],
        "mean": [MEAN] * 3,
        "std": [STD] * 3,
        "interpolation": "bilinear",
        "crop_pct": 1.0,
        "num_classes": len(LETTERS),
        "provider": "bundled",
        "arch": ARCH,
        "classes": list(LETTERS),
        "note": "not ImageNet-pretrained: trained on rendered letters",
    }
    write_json(out / "glyphnet.json", record)


def few_labels(cells: np.ndarray, shots: int, seed: int) -> np.ndarray:
    """Return a mask, shape (N,): `shots` random images of each cell."""
    rng = np.random.default_rng(seed)
    chosen = np.zeros(len(cells), bool)
    for cell in np.unique(cells):
        chosen[rng.choice(np.flatnonzero(cells == cell), shots, replace=False)] = True
    return chosen


def augment_images(images: torch.Tensor) -> torch.Tensor:
    """Rotate (15 degrees), scale (0.83 to 1.18) and shift (a tenth of the side) each of (N, 3, H, W) at random."""
    n = len(images)
    turn, scale = torch.empty(n).uniform_(-0.26, 0.26), torch.empty(n).uniform_(0.85, 1.2)
    rows = torch.stack([turn.cos(), -turn.sin(), turn.sin(), turn.cos()], 1).view(n, 2, 2) * scale[:, None, None]
    affine = torch.cat([rows, torch.empty(n, 2, 1).uniform_(-0.2, 0.2)], 2)
    grid = F.affine_grid(affine, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


@torch.no_grad()
def in_batches(function: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor) -> np.ndarray:
    return torch.cat([function(part) for part in images.split(256)]).numpy()


def probe(x: torch.Tensor, y: torch.Tensor, test: torch.Tensor, augment: bool, weights: Path) -> np.ndarray:
    """Return the predictions of a logistic regression on the frozen network's standardised pooled features."""
    model = network()
    model.load_state_dict(load_file(weights))
    model.reset_classifier(0)
    model.eval()
    views = [x] + [augment_images(x) for _ in range(20 * augment)]
    solver = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
    solver.fit(np.concatenate([in_batches(model, view) for view in views]), np.tile(y.numpy(), len(views)))
    return solver.predict(in_batches(model, test))


def scratch(x: torch.Tensor, y: torch.Tensor, test: torch.Tensor, augment: bool, steps: int) -> np.ndarray:
    """Return the predictions of the same network trained from random weights (AdamW, one cycle, batches of 32)."""
    model = network(10).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps, pct_start=0.1)
    for _ in range(steps):
        batch = torch.randperm(len(x))[:32]
        images = augment_images(x[batch]) if augment else x[batch]
        loss = F.cross_entropy(model(images.contiguous(memory_format=torch.channels_last)), y[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return in_batches(model.eval(), test).argmax(1)


def measure(options: Options, shots: int = 10, seeds: tuple[int, ...] = (0, 1, 2)) -> None:
    """Print object accuracy on each domain of `digits` with few labels: the probe and training from scratch."""
    names, labels, images = map(np.array, zip(*((d, int(c), np.array(i)) for d, c, i in draw_digits()), strict=True))
    x, y = prepared(torch.from_numpy(images)), torch.from_numpy(labels)
    methods = {
        "probe": partial(probe, weights=options.out / "glyphnet.safetensors"),
        "scratch": partial(scratch, steps=options.steps),
    }
    rows = {(method, augment): {d: [] for d in DIGIT_DOMAINS} for augment in (False, True) for method in methods}
    for seed, domain in (bar := tqdm(list(product(seeds, DIGIT_DOMAINS)), disable=None)):
        in_domain = names == domain
        train = in_domain & few_labels(np.char.add(names, labels.astype(str)), shots, seed)
        for (method, augment), cells in rows.items():
            bar.set_postfix_str(f"{domain}, {method}")
            torch.manual_seed(seed)
            predictions = methods[method](x[train], y[train], x[in_domain & ~train], augment)
            cells[domain].append(100 * np.mean(predictions == labels[in_domain & ~train]))
    for (method, augment), cells in rows.items():
        scores = (f"{d} {np.mean(v):.1f} ± {np.std(v, ddof=1):.1f}" for d, v in cells.items())
        print(f"{method + ', augmented' * augment:20}", *scores, sep="  ")


if __name__ == "__main__":
    options = tyro.cli(Options)
    measure(options) if options.measure else pretrain(options)
