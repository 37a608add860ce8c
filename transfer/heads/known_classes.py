"""Heads that continue from those of another model, which may know fewer classes."""

from collections.abc import Sequence
from math import log

import torch
from torch import Tensor, nn

from transfer.heads.heads import PAIR, Heads

NEW_LABEL = 0.01  # probability of a label that is not trained yet, as Lin et al. 2017, sec. 4.1, have it


@torch.no_grad()
def copy_known_classes(heads: Heads, old: Heads) -> bool:
    """Give `heads` the weights of `old`; return whether it has all classes of all heads.

    Layers of which it has no class stay as they are.

    A new class gets the mean of the known classes' weights: the largest of several logits is at least their mean, so
    that no image is predicted to be of a new class, and no prediction changes before training. A new label, one of any
    number an image, is of probability `NEW_LABEL` for each image.
    """
    heads.centre.copy_(old.centre)
    heads.spread.copy_(old.spread)
    names = [name for name in heads.specs if not (heads.joint and name in PAIR)] + ["joint"] * heads.joint
    shared = [name for name in old.specs if not (old.joint and name in PAIR)] + ["joint"] * old.joint
    complete = True
    for name in names:
        places = _find_places(name, heads, old) if name in shared else None
        if places is not None:
            of_labels = name in heads.specs and not heads.specs[name].head_kind.has_classes
            _copy_layers(heads.layer(name), old.layer(name), places, of_labels=of_labels)
        complete = complete and places is not None and -1 not in places
    return complete


def _find_places(name: str, heads: Heads, old: Heads) -> list[int] | None:
    """Return for each output of a layer of `heads` the same one in `old`, -1 if it is new; None if none corresponds."""
    if name == "joint":
        domains, objects = (_match(heads.specs[each].classes, old.specs[each].classes) for each in ("domain", "object"))
        width = old.specs["object"].outputs
        return [d * width + o if d >= 0 and o >= 0 else -1 for d in domains for o in objects]
    new, before = heads.specs[name], old.specs[name]
    if new.kind != before.kind:
        return None
    if new.outputs == len(new.classes) and before.outputs == len(before.classes):
        return _match(new.classes, before.classes)
    return list(range(new.outputs)) if new.classes == before.classes and new.outputs == before.outputs else None


def _match(classes: Sequence[str], known: Sequence[str]) -> list[int]:
    return [known.index(name) if name in known else -1 for name in classes]


def _copy_layers(layers: nn.Module, old: nn.Module, places: Sequence[int], *, of_labels: bool) -> None:
    """Copy all linear layers; the outputs of the last are those of `old` at `places`, and at -1 new ones.

    New ones are the mean of the others, or `of_labels` without weights.
    """
    new, before = ([each for each in module.modules() if isinstance(each, nn.Linear)] for module in (layers, old))
    for linear, other in zip(new[:-1], before[:-1], strict=True):
        linear.weight.copy_(other.weight)
        linear.bias.copy_(other.bias)
    weight, bias = before[-1].weight, before[-1].bias
    fresh = (torch.zeros_like(weight[0]), torch.full_like(bias[0], log(NEW_LABEL / (1 - NEW_LABEL))))
    new[-1].weight.copy_(_pick(weight, fresh[0] if of_labels else weight.mean(0), places))
    new[-1].bias.copy_(_pick(bias, fresh[1] if of_labels else bias.mean(0), places))


def _pick(rows: Tensor, fresh: Tensor, places: Sequence[int]) -> Tensor:
    return torch.cat([rows, fresh[None]])[list(places)]  # -1 is the fresh one
