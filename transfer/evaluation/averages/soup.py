"""Model soups: one model whose weights are the mean of those of several runs (Wortsman et al. 2022)."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from transfer.backbones.weights import set_tensors
from transfer.errors import TransferError
from transfer.heads.multilabel.head import average_thresholds
from transfer.model import TransferModel
from transfer.runs.checkpoint import Models, load_head_config, save_models

NOT_PRETRAINED = "random"  # where the weights of a backbone that was not pretrained come from


def average_weights(runs: Sequence[Path], members: Sequence[Models]) -> Models:
    """Return the first of `members` with the mean of all weights, norm statistics included; they have the same heads.

    Parameters
    ----------
    runs : sequence of Path
        Where the members come from, for errors.
    members : sequence of dict of str to TransferModel
        Fine-tuned from the same weights: the mean of others means nothing.

    Raises
    ------
    TransferError
        A member has another backbone, was trained from other weights, or has heads of another shape.

    References
    ----------
    M. Wortsman et al., "Model soups: averaging weights of multiple fine-tuned models improves accuracy without
    increasing inference time", 2022 ("uniform soup").
    """
    first = members[0]
    for run, member in zip(runs[1:], members[1:], strict=True):
        for part, model in first.items():
            if reason := _find_difference(model, member.get(part)):
                raise TransferError(f"{run} and {runs[0]} cannot be averaged: {reason}; evaluate them without --soup")
    for part, model in first.items():
        models = [member[part] for member in members]
        states = [each.state_dict() for each in models]
        set_tensors(model, {name: _average([state[name] for state in states]) for name in states[0]})
        for name, spec in model.heads.specs.items():
            model.heads.specs[name] = average_thresholds(spec, [each.heads.specs[name] for each in models[1:]])
    return first


def save_soup(file: Path, runs: Sequence[Path], soup: Models) -> None:
    """Write a soup of `runs` to `file`, as a model that `transfer predict` reads."""
    file.parent.mkdir(parents=True, exist_ok=True)
    save_models(file, soup, load_head_config(runs[0]))


def check_soup_file(file: Path) -> None:
    """Raise a TransferError unless a soup can be written to `file`."""
    if file.suffix != ".safetensors":
        raise TransferError(f"--soup {file}: name a file that ends in .safetensors")
    if file.exists():
        raise TransferError(f"--soup {file} exists: name another file")


def _find_difference(first: TransferModel, other: TransferModel | None) -> str:
    """Return why the weights of two models cannot be averaged, or nothing."""
    if other is None:
        return "only one has a network for each head"
    one, two = first.backbone, other.backbone
    if one.name != two.name:
        return f"the backbones are {two.name} and {one.name}"
    if NOT_PRETRAINED in (one.weights, two.weights):
        return "they were not fine-tuned from the same pretrained weights"
    shapes = [{name: tensor.shape for name, tensor in model.state_dict().items()} for model in (first, other)]
    if shapes[0] != shapes[1]:
        name = next(name for name in shapes[0] | shapes[1] if shapes[0].get(name) != shapes[1].get(name))
        return f"{name} is missing in one, or of another shape"
    if one.preprocessing != two.preprocessing:
        return "they read images differently"
    return ""


def _average(tensors: Sequence[Tensor]) -> Tensor:
    """Return the mean of `tensors`; the first of them where they are no floating-point numbers, such as counts."""
    if not tensors[0].is_floating_point():
        return tensors[0]
    mean = torch.stack([tensor.cpu().double() for tensor in tensors]).mean(0)  # not every device has float64
    return mean.to(tensors[0].dtype)
