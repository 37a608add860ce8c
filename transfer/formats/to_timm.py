"""timm: the stock architecture with the object head as its classifier, in a folder that timm can load."""

import tempfile
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save_file
from torch import nn

from transfer.backbones import registry
from transfer.backbones.providers.timm_models import TimmModels
from transfer.backbones.variants import AllStagesBackbone, TruncatedBackbone
from transfer.errors import TransferError
from transfer.formats.plain_heads import PlainHead, extract_plain_heads
from transfer.formats.portable import ExportSource, PreparedExport
from transfer.model import TransferModel
from transfer.runs.checkpoint import Models
from transfer.runtime.files import atomic_write

LAYER_KEYS = ("weight", "bias")
PRETRAINED_ONLY = ("tag", "license")  # of timm's pretrained_cfg; they do not hold for trained weights
INSTEAD = "give --format onnx or torch_export"


def to_timm(source: ExportSource) -> PreparedExport:
    """Return the run as timm's network with the object head as its classifier, and the other heads beside it.

    The folder has ``model.safetensors`` and ``config.json``, for ``timm.create_model("local-dir:FOLDER",
    pretrained=True)``, and ``heads/heads.safetensors``: weight and bias of each other head, on the network's pooled
    features. (Beside the model, timm up to 1.0.28 would load that file in its place.) A backbone or heads that timm
    cannot express raise a TransferError.
    """
    model = _timm_model(source.models)
    heads = extract_plain_heads(model.heads)
    for name, head in heads.items():
        if len(head.layers) > 1:
            raise TransferError(f"--format timm: the {name} head is an MLP, timm's classifier is linear: {INSTEAD}")
    if "object" not in heads:
        raise TransferError(f"--format timm: its classifier is the object head, and there is none: {INSTEAD}")
    network = _build_timm_network(model, heads.pop("object"))

    def write(out: Path) -> list[Path]:
        with tempfile.TemporaryDirectory() as folder:
            labels = source.about["heads"]["object"]["classes"]
            config = {"label_names": labels, "pretrained_cfg": source.about["preprocessing"]}
            known: Any = network.pretrained_cfg
            network.pretrained_cfg = {k: v for k, v in known.items() if k not in PRETRAINED_ONLY}  # type: ignore[assignment]
            timm.models.save_for_hf(network, folder, config, safe_serialization=True)
            if heads:
                tensors = {
                    f"{n}.{k}": t for n, h in heads.items() for k, t in zip(LAYER_KEYS, h.layers[0], strict=True)
                }
                (Path(folder) / "heads").mkdir()
                save_file(tensors, Path(folder) / "heads" / "heads.safetensors")
            written = []
            for file in sorted(file for file in Path(folder).rglob("*") if file.is_file()):
                written.append(out / file.relative_to(folder))
                with atomic_write(written[-1]) as temporary:
                    temporary.write_bytes(file.read_bytes())
        return written

    with torch.no_grad():
        probabilities = network(model.backbone.preprocessing.normalise(source.images)).softmax(1)
    return PreparedExport(write, {"object": probabilities.numpy()})


def _timm_model(models: Models) -> TransferModel:
    """Return the only network of `models`; raise if timm has no such architecture."""
    if len(models) > 1:
        raise TransferError(f"--format timm: separate heads are {len(models)} networks, timm's is one: {INSTEAD}")
    (model,) = models.values()
    provider, name = registry.resolve(model.backbone.name)
    if not isinstance(provider, TimmModels):
        raise TransferError(f"--format timm: {name} is not an architecture of timm: {INSTEAD}")
    if isinstance(model.backbone, TruncatedBackbone):
        raise TransferError(f"--format timm: {name} without its last stages is not an architecture of timm: {INSTEAD}")
    if isinstance(model.backbone, AllStagesBackbone):
        raise TransferError(f"--format timm: these heads read all stages, timm's classifier the last one: {INSTEAD}")
    if model.heads.joint:
        raise TransferError(f"--format timm: a joint head's classes are pairs of object and domain: {INSTEAD}")
    return model


def _build_timm_network(model: TransferModel, head: PlainHead) -> nn.Module:
    """Return timm's network with the weights of `model` and `head` as its classifier."""
    backbone = model.backbone
    provider, name = registry.resolve(backbone.name)
    weight, bias = head.layers[0]
    path = provider.classifier_layout(name, backbone.network).path
    network = timm.create_model(name, pretrained=False, num_classes=len(bias)).eval()
    state = dict(backbone.network.state_dict())
    if path:
        shape = network.state_dict()[f"{path}.weight"].shape
        state |= {f"{path}.weight": weight.reshape(shape), f"{path}.bias": bias}
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise TransferError(
            f"--format timm: {name} does not classify by one linear layer on pooled features: {INSTEAD}"
        ) from error
    return network
