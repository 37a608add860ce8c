"""The usual loop that benchmarks compare with: ImageFolder, DataLoader, a frozen timm network run in every epoch."""

import time
from pathlib import Path

import timm
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

BATCH = 64


class OfficeObjects(ImageFolder):
    """Office-31 read by ImageFolder by domain; the object comes from the path."""

    def __init__(self, root: Path, network: nn.Module) -> None:
        config = timm.data.resolve_data_config({}, model=network)
        super().__init__(str(root), timm.data.create_transform(**config))
        names = sorted({Path(path).parent.name for path, _ in self.samples})
        self.objects = [names.index(Path(path).parent.name) for path, _ in self.samples]

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int, int]:
        image, domain = super().__getitem__(index)
        return image, self.objects[index], domain


def load_network(backbone: str, weights: Path) -> nn.Module:
    """Return timm's frozen network without its classifier."""
    from safetensors.torch import load_file

    model = timm.create_model(backbone, pretrained=False)
    model.load_state_dict(load_file(weights / f"{backbone}.safetensors"))
    model.reset_classifier(0)
    return model.eval().requires_grad_(False)


def make_loader(root: Path, model: nn.Module, workers: int, shuffle: bool) -> DataLoader:
    """Return a DataLoader over all images."""
    return DataLoader(OfficeObjects(root, model), BATCH, shuffle=shuffle, num_workers=workers)


def time_epoch(model: nn.Module, batches: DataLoader, heads: tuple[nn.Linear, nn.Linear]) -> float:
    """Train both heads and the trainable parameters of `model` for one epoch; return the seconds."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW([*trained, *(p for head in heads for p in head.parameters())], lr=3e-3)
    started = time.perf_counter()
    for images, objects, domains in batches:
        with torch.set_grad_enabled(bool(trained)):
            features = model(images)
        loss = F.cross_entropy(heads[0](features), objects) + F.cross_entropy(heads[1](features), domains)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return time.perf_counter() - started


def time_evaluation(model: nn.Module, batches: DataLoader) -> float:
    """Run the network over every image; return the seconds."""
    started = time.perf_counter()
    with torch.inference_mode():
        for images, _, _ in batches:
            model(images)
    return time.perf_counter() - started
