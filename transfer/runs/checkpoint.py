"""Trained models on disk: one safetensors file that predicts anywhere, with no hub and no config beside it."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from transfer import backbones
from transfer.backbones.backbone import Backbone
from transfer.backbones.engines import ActivationRanges
from transfer.backbones.providers.joined_models import WEIGHTS_SEPARATOR
from transfer.backbones.registry import resolve
from transfer.backbones.stages import BuildOnMeta
from transfer.backbones.variants import AllStagesBackbone, TruncatedBackbone
from transfer.backbones.weights import set_tensors
from transfer.config.checked import from_dict
from transfer.config.serialise import to_dict
from transfer.config.shared import Engine
from transfer.config.train import HeadConfig
from transfer.data.images.preprocessing import Preprocessing
from transfer.errors import TransferError, UnknownName, get_first_line
from transfer.heads import HeadSpec
from transfer.heads.heads import Heads
from transfer.model import TransferModel
from transfer.runtime.compiler import defer_compiler
from transfer.runtime.files import atomic_write, open_regular, parse_json
from transfer.runtime.plugins import name_recorded_plugins

MODEL_FORMAT = "transfer 1"
NETWORK, HEADS = "backbone.network.", "heads."  # of the names of a model's tensors
Shape = tuple[int, ...]
Models = dict[str, TransferModel]
"""A run's networks by part: one called ``""`` for dual and joint heads, one per head for separate ones."""


@dataclass(frozen=True)
class NetworkHeader:
    """One network in a file's header."""

    cut: int
    specs: tuple[HeadSpec, ...]
    cut_precision: Literal["float16", "float32"] = "float16"
    engine: Engine = "torch"  # of the trunk; earlier versions had no other
    calibration: ActivationRanges | None = None  # of int8


@dataclass(frozen=True)
class ModelHeader:
    """The header of a model file, from an untrusted source; :func:`from_dict` checks the types of its values."""

    format: str
    backbone: str
    weights: str
    preprocessing: Preprocessing
    heads: HeadConfig
    parts: dict[str, NetworkHeader]
    dropped: int = 0
    every_stage: bool = False


def build_heads(specs: list[HeadSpec], width: int, config: HeadConfig) -> Heads:
    """Return heads for `specs` as `config` says."""
    return Heads(
        specs,
        width,
        compose="joint" if config.heads == "joint" else "dual",
        hidden=config.hidden,
        activation=config.activation,
        dropout=config.dropout or 0.0,
        init=config.head_init,
        dropout_kind=config.dropout_kind,
        drop_connect=config.drop_connect,
    )


def save_models(path: Path, models: Mapping[str, TransferModel], config: HeadConfig) -> None:
    """Write `models` to `path` as safetensors; the header carries all that is needed to rebuild them."""
    tensors: dict[str, Tensor] = {}
    parts = {}
    for part, model in models.items():
        for name, tensor in model.state_dict().items():
            tensors[f"{part}/{name}"] = tensor.detach().cpu().contiguous()
        calibration = model.backbone.calibration
        parts[part] = {
            "cut": model.cut,
            "cut_precision": model.cut_precision,
            "engine": model.engine,
            **({"calibration": calibration.to_dict()} if calibration and model.engine == "int8" else {}),
            "specs": [asdict(spec) for spec in model.heads.specs.values()],
        }
    backbone = next(iter(models.values())).backbone
    header = {
        "format": MODEL_FORMAT,
        "backbone": backbone.name,
        "weights": _without_folder(backbone.weights),
        "dropped": len(backbone.dropped),
        "every_stage": isinstance(backbone, AllStagesBackbone),
        "preprocessing": backbone.preprocessing.to_dict(),
        "heads": to_dict(config),
        "parts": parts,
    }
    with atomic_write(path) as temporary:
        save_file(tensors, temporary, metadata={"transfer": json.dumps(header)})


def _without_folder(weights: str) -> str:
    """Return where weights came from, without local folders, which a model file must not reveal."""
    places = (each.partition(" ") for each in weights.split(WEIGHTS_SEPARATOR))
    shown = (f"{kind} {Path(place).name if kind in ('file', 'store') else place}" for kind, _, place in places)
    return WEIGHTS_SEPARATOR.join(each.strip() for each in shown)


def load_models(path: Path, device: torch.device | str = "cpu", engine: Engine | None = None) -> Models:
    """Return the models saved in the run folder or file `path`, in eval mode.

    Their trunks run on `engine`, by default on the one that they were trained with.

    Raises
    ------
    TransferError
        There is no such file, it is no model of this package, or it is damaged.
    """
    file = path / "model.safetensors" if path.is_dir() else path
    try:
        open_regular(file).close()  # safe_open reports a file without read permission as missing
    except PermissionError as error:
        raise TransferError(f"cannot read {file}: {error.strerror}") from None
    except OSError:
        raise TransferError(
            f"no run at {path}: name the folder of a finished run (--out of `transfer train` or `transfer adapt`), or "
            "its model.safetensors"
        ) from None
    try:
        with safe_open(file, "pt") as opened:
            values = parse_json((opened.metadata() or {}).get("transfer", "{}"))
            shapes = {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
            if not isinstance(values, dict) or values.get("format") != MODEL_FORMAT:
                raise TransferError(f"{file} is no model of this tool: expected the output of `transfer train`")
            with name_recorded_plugins(file.parent):
                header = _check_header(file, values, shapes)
                built = {part: _build_checked(file, header, part, shapes) for part in header.parts}
            tensors = {name: opened.get_tensor(name) for name in shapes}
    except (SafetensorError, ValueError, OSError) as error:
        raise TransferError(f"{file} is not a readable safetensors file ({error}): train the run again") from error
    models: Models = {}
    for part, saved in header.parts.items():
        backbone, heads = built[part]
        if not (0 <= saved.cut <= len(backbone.stages) and backbone.can_cut(saved.cut)):
            raise TransferError(f"{file} is damaged: {header.backbone} cannot be cut at {saved.cut}")
        backbone.engine, backbone.calibration = engine or saved.engine, saved.calibration
        model = TransferModel(backbone, heads, saved.cut, saved.cut_precision)
        set_tensors(model, {k.removeprefix(f"{part}/"): v for k, v in tensors.items() if k.startswith(f"{part}/")})
        models[part] = model.to(device).eval()
    return models


def load_head_config(path: Path) -> HeadConfig:
    """Return how the heads of a saved run are built; `path` is one that :func:`load_models` has read."""
    with safe_open(path / "model.safetensors" if path.is_dir() else path, "pt") as opened:
        values = parse_json(opened.metadata()["transfer"])
    return from_dict(HeadConfig, values["heads"])


load = load_models  # its name in the model cards of version 0.1


def _check_header(file: Path, values: dict, shapes: Mapping[str, Shape]) -> ModelHeader:
    """Return the header after comparing the numbers of its networks and heads with that of tensors in its file."""
    try:
        header = from_dict(ModelHeader, values)
    except UnknownName as error:
        raise UnknownName(f"{file}: {error}") from error
    except TransferError as error:
        raise TransferError(f"{file} is damaged: {error}") from error
    count = max(len(header.parts), len(header.heads.hidden), *(len(part.specs) for part in header.parts.values()), 0)
    if not header.parts or count > len(shapes):
        raise TransferError(f"{file} is damaged: it says that it holds {len(header.parts)} networks")
    for part in header.parts.values():
        if len({spec.name for spec in part.specs}) < len(part.specs):
            raise TransferError(f"{file} is damaged: two heads have one name")
        if any(len(spec.thresholds) not in (0, len(spec.classes)) for spec in part.specs):
            raise TransferError(f"{file} is damaged: a head has another number of thresholds than of classes")
    return header


def _build_checked(file: Path, header: ModelHeader, part: str, shapes: Mapping[str, Shape]) -> tuple[Backbone, Heads]:
    """Return the network and heads of a part with random weights, after comparing them with the `shapes` in `file`.

    Each is built without content first, so that nothing is allocated that the header claims and the file lacks. A
    forward pass without content imports SymPy, which takes 0.8 s: only a network that lacks stages needs one.
    """
    found = {key.removeprefix(f"{part}/"): shape for key, shape in shapes.items() if key.startswith(f"{part}/")}
    of_network = {key: found.pop(key) for key in list(found) if key.startswith(NETWORK)}
    with _build_without_content(file):
        provider, name = resolve(header.backbone)
        network = _build_backbone(header).network if header.dropped else provider.build(name)
    _compare_shapes(file, header, {NETWORK + key: tensor for key, tensor in network.state_dict().items()}, of_network)
    backbone = _build_backbone(header)
    specs = list(header.parts[part].specs)
    with _build_without_content(file):
        heads = build_heads(specs, backbone.width, header.heads)
    _compare_shapes(file, header, {HEADS + key: tensor for key, tensor in heads.state_dict().items()}, found)
    return backbone, build_heads(specs, backbone.width, header.heads)


@contextmanager
def _build_without_content(file: Path) -> Iterator[None]:
    """Within the block, build on the meta device; whatever fails is an error in `file`."""
    try:
        with BuildOnMeta(), defer_compiler():
            yield
    except TransferError as error:
        raise type(error)(f"{file}: {error}") from error
    except Exception as error:  # sizes and names that no network can have
        reason = get_first_line(error)
        raise TransferError(f"{file} is damaged: no network is as it says ({reason})") from error


def _compare_shapes(
    file: Path, header: ModelHeader, expected: Mapping[str, Tensor], found: Mapping[str, Shape]
) -> None:
    for key in expected.keys() | found.keys():
        if key not in found or key not in expected or found[key] != tuple(expected[key].shape):
            raise TransferError(f"{file} does not fit {header.backbone}: {key} is missing, of another shape or new")


def _build_backbone(header: ModelHeader) -> Backbone:
    """Return the backbone with random weights."""
    backbone = backbones.load(header.backbone, random_init=True)
    backbone.preprocessing = header.preprocessing
    backbone.weights = header.weights
    if header.dropped:
        return TruncatedBackbone(backbone, header.dropped)
    return AllStagesBackbone(backbone) if header.every_stage else backbone
