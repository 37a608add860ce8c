"""Law 4: a wrong hit is worse than any miss, so the key covers all that an activation depends on, but nothing else."""

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from transfer.backbones import trunk
from transfer.backbones.engines import chunks
from transfer.data.images.augment import Augmentation
from transfer.feature_cache import key as key_module
from transfer.feature_cache.key import describe_activation, get_view_seed
from transfer.model import TransferModel

CROP = Augmentation(crop_scale=(0.5, 1.0), flip=True)


def keyed(model: TransferModel, **options: Any) -> str:
    options = {"cut": model.cut, "precision": "float16", **options}
    return json.dumps(describe_activation(model, **options), sort_keys=True)


def test_it_covers_every_tensor_of_the_trunk(ready: Callable[..., TransferModel]) -> None:
    model = ready("partial:2")
    before = keyed(model)
    assert keyed(ready("partial:2")) == before  # the same thing built anew is the same
    network = model.backbone.network
    names = [n for n, _ in [*network.named_parameters(), *network.named_buffers()] if model.backbone.stage_of(n) < 3]
    assert any(n.endswith("running_mean") for n in names)
    for name in names:
        tensor = network.state_dict()[name]
        last = (-1,) * tensor.ndim
        value = tensor[last].clone()
        tensor[last] = torch.nextafter(value, torch.tensor(torch.inf)) if value.is_floating_point() else value + 1
        assert keyed(model) != before, name
        tensor[last] = value
        assert keyed(model) == before


def test_it_does_not_cover_what_learns(ready: Callable[..., TransferModel]) -> None:
    model = ready("partial:1")
    before = keyed(model)
    with torch.no_grad():
        model.backbone.network.layer4[0].conv1.weight.add_(1)
        model.heads.layers["head_object"][0].weight.add_(1)
    assert keyed(model) == before


def test_it_covers_cut_precision_preprocessing_and_view(ready: Callable[..., TransferModel]) -> None:
    model = ready("partial:2")
    seen = {keyed(model)}

    def is_new(**options: Any) -> bool:
        key = keyed(model, **options)
        fresh = key not in seen
        seen.add(key)
        return fresh

    for cut in (1, 2, 4, 5):
        assert is_new(cut=cut), cut
    assert is_new(precision="float32")
    for view in (1, 2):
        assert is_new(view=view, augmentation=CROP)
        assert is_new(view=view, augmentation=replace(CROP, flip=False))
        assert is_new(view=view, augmentation=replace(CROP, crop_scale=(0.4, 1.0)))
    given = model.backbone.preprocessing
    for change in (
        {"input_size": (3, 64, 64)},
        {"mean": (0.1, 0.2, 0.3)},
        {"std": (0.5, 0.5, 0.6)},
        {"interpolation": "nearest"},
        {"crop_pct": 0.5},
        {"crop_mode": "squash"},
    ):
        model.backbone.preprocessing = replace(given, **change)
        assert is_new(), change


@pytest.mark.parametrize("name", ["DECODER", "VIEW_VERSION", "TRUNK_VERSION", "__version__"])
def test_it_covers_decoder_rules_and_torch(
    ready: Callable[..., TransferModel], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    model = ready()
    before = keyed(model, view=1, augmentation=CROP)
    owner = {"TRUNK_VERSION": trunk, "__version__": torch}.get(name, key_module)
    monkeypatch.setattr(owner, name, "another")
    assert keyed(model, view=1, augmentation=CROP) != before


def test_it_covers_the_processor(ready: Callable[..., TransferModel], monkeypatch: pytest.MonkeyPatch) -> None:
    model = ready()
    before = keyed(model)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "another")
    assert keyed(model) != before


def test_it_covers_the_code_of_a_custom_backbone(ready: Callable[..., TransferModel]) -> None:
    model, keys = ready(), []
    for digest in ("", "one", "two"):
        model.backbone.code_digest = digest
        keys.append(keyed(model))
    assert len(set(keys)) == 3


def test_it_names_backbone_stage_and_cut(ready: Callable[..., TransferModel]) -> None:
    model = ready()
    stages = model.backbone.stages
    for cut in range(1, len(stages) + 1):
        about = describe_activation(model, cut, "float16")
        stage = stages[cut - 1].name if cut < len(stages) else model.backbone.output_kind
        assert (about["backbone"], about["stage"], about["cut"]) == ("test_resnet", stage, cut)
        assert about["precision"] == ("float16" if cut < len(stages) else "float32")


def test_pooled_features_are_float32_whatever_the_precision_at_the_cut(ready: Callable[..., TransferModel]) -> None:
    model = ready("linear_probe")
    assert keyed(model, precision="float16") == keyed(model, precision="float32")


def test_the_evaluation_view_is_one_whatever_the_augmentation(ready: Callable[..., TransferModel]) -> None:
    model = ready()
    assert keyed(model, view=0, augmentation=CROP) == keyed(model, augmentation=CROP) == keyed(model)


def test_views_are_seeded_by_image_and_number() -> None:
    seeds = {get_view_seed(digest * 64, view) for digest in "0123456789abcdef" for view in range(4)}
    assert len(seeds) == 64
    assert get_view_seed("a" * 64, 1) == get_view_seed("a" * 64, 1)


def test_seeds_of_views_are_those_of_earlier_caches() -> None:
    """Other seeds need another VIEW_VERSION, or views cached before would be taken for them."""
    assert key_module.VIEW_VERSION == 1
    assert get_view_seed("0123456789abcdef" * 4, 3) == (1, 3, 0x0123456789ABCDEF)


def test_weights_are_hashed_again_only_if_they_may_have_changed(
    ready: Callable[..., TransferModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, hashed = ready("partial:1"), []
    real = key_module.hash_tensors
    monkeypatch.setattr(key_module, "hash_tensors", lambda tensors: hashed.append(1) or real(tensors))
    before = keyed(model)
    assert keyed(model) == before == keyed(model.with_heads(model.heads))
    assert len(hashed) == 1
    first = next(iter(model.trunk_tensors().values()))
    with torch.no_grad():
        first.mul_(1)  # a write, though of the same values
    assert keyed(model) == before
    assert len(hashed) == 2
    module = next(m for m in model.backbone.network.modules() if getattr(m, "weight", None) is first)
    module.weight = torch.nn.Parameter(first.detach().clone(), requires_grad=False)  # another tensor
    assert keyed(model) == before
    assert len(hashed) == 3
    assert keyed(model, cut=1) != before
    assert keyed(copy.deepcopy(model)) == before
    assert len(hashed) == 5


def test_it_covers_the_gpu_and_how_it_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """No features of another device, GPU, cuDNN, precision of products or size of a forward pass are a hit."""
    gpu = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "one")
    found = [key_module._computed(torch.device(kind), "torch") for kind in ("cpu", "mps", "cuda")]
    for owner, name, value in (
        (torch.cuda, "get_device_name", lambda device: "another"),
        (torch.backends.cudnn, "version", lambda: 1),
        (chunks, "DEFAULT_CHUNK_IMAGES", 3),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, value)
            found.append(key_module._computed(gpu, "torch"))
    before = torch.backends.cudnn.allow_tf32
    try:
        torch.backends.cudnn.allow_tf32 = not before
        found.append(key_module._computed(gpu, "torch"))
    finally:
        torch.backends.cudnn.allow_tf32 = before
    assert len(set(found)) == 7
