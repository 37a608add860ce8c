"""Where weights come from: a file, a local store, the bundle, the hub. Nothing is ever unpickled."""

import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import safetensors
import safetensors.torch
import torch
from huggingface_hub import constants
from torch import Tensor, nn

from transfer.backbones import weight_files
from transfer.backbones.onmap import OnMap
from transfer.backbones.registry import Provider
from transfer.data.images.preprocessing import Preprocessing
from transfer.errors import TransferError
from transfer.runtime.files import read_json

WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model_state", "model_state_dict", "model")
PREFIXES = ("module.", "_orig_mod.", "model.")


@dataclass(frozen=True)
class Found:
    """Weights, where they were, and the preprocessing beside them (None: the provider's own record holds)."""

    state: dict[str, Tensor]
    where: str
    preprocessing: Preprocessing | None = None


def find(provider: Provider, name: str, file: Path | None = None, store: Path | None = None) -> Found:
    """Return the weights of `name`: from `file`, else the store, else the bundle, else the hub.

    Parameters
    ----------
    store : Path, optional
        Folder of ``<name>.safetensors`` (or .pt, .pth); by default what ``TRANSFER_WEIGHTS`` says.

    Raises
    ------
    TransferError
        There are none, or they cannot be read.
    """
    if file is not None:
        return Found(read(file), f"file {file}", beside(file))
    folder = weight_files.store_folder(store)
    if stored := weight_files.store_file(name, folder):
        return Found(read(stored), f"store {stored}", beside(stored))
    if bundled := weight_files.bundle_file(name):
        return Found(read(bundled), "bundle", beside(bundled))
    return _from_hub(provider, name, folder)


def read(file: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors or torch file, without the wrapping and key prefixes that trainers add.

    Raises
    ------
    TransferError
        No such file, not weights, or a pickle that would run code.
    """
    file = Path(file).expanduser()
    if not file.is_file():
        raise TransferError(f"no weights file {file}: name a .safetensors, .pt or .pth file")
    content: Any
    try:
        if file.suffix == ".safetensors":
            content = safetensors.torch.load_file(file)
        else:
            content = torch.load(file, map_location="cpu", weights_only=True)
    except UnpicklingError as error:  # all that is wanted of pickle: torch says by it that it refuses
        raise TransferError(
            f"{file} is not loaded: it holds more than tensors, and unpickling runs code; save its tensors alone"
        ) from error
    except Exception as error:  # of broken bytes the readers raise nearly anything
        raise TransferError(f"{file} cannot be read as weights: {_line(error)}") from error
    while isinstance(content, dict) and (key := next((k for k in WRAPPERS if isinstance(content.get(k), dict)), None)):
        content = content[key]
    if not isinstance(content, dict) or not any(isinstance(value, Tensor) for value in content.values()):
        raise TransferError(f"{file} holds no weights: expected tensors by name, as in a state_dict")
    state = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    while prefix := next((p for p in PREFIXES if all(key.startswith(p) for key in state)), None):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def beside(file: Path) -> Preprocessing | None:
    """Return the preprocessing recorded in ``<name>.json`` beside the weights ``<name>.safetensors``, if there is one.

    Raises
    ------
    TransferError
        The record is not valid.
    """
    record = Path(file).expanduser().with_suffix(".json")
    if not record.is_file():
        return None
    try:
        return Preprocessing.from_dict(read_json(record))
    except TransferError as error:
        raise TransferError(
            f"{record} is no preprocessing record: {_line(error)}; see the names in transfer.data.images.preprocessing"
        ) from error


def fit(provider: Provider, name: str, network: nn.Module, found: Found) -> nn.Module | None:
    """Load what was found into `network`, every tensor of it, and return the original classifier if there was one.

    It is linear on pooled features, or an :class:`OnMap`.

    Only the classifier's tensors (and auxiliary classifiers') may be left over.

    Raises
    ------
    TransferError
        Something is missing, unexpected or of another shape.
    """
    spare, path, pooled = provider.spare(name, network)
    state = found.state
    if spoilt := [key for key, tensor in state.items() if not tensor.isfinite().all()]:
        raise TransferError(f"{found.where} is not finite in {_some(spoilt)}: it cannot be learned from")
    if problems := _misfits(network, state, spare):
        state = _renamed(provider, name, network, state)
        if _misfits(network, state, spare):
            raise TransferError(f"{found.where} does not fit {name}: {'; '.join(problems)}")
    with torch.no_grad():  # not load_state_dict, which in some networks wants a version that safetensors do not keep
        for key, tensor in network.state_dict().items():
            if key in state:
                tensor.copy_(state[key])
    weight, bias = state.get(f"{path}.weight"), state.get(f"{path}.bias")
    if not path or weight is None or weight.ndim not in (2, 4):
        return None
    classifier = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    classifier.load_state_dict({"weight": weight.flatten(1), **({} if bias is None else {"bias": bias})})
    return classifier.eval() if pooled else OnMap(classifier).eval()


def _misfits(network: nn.Module, state: dict[str, Tensor], spare: set[str]) -> list[str]:
    own = network.state_dict()
    # Files older than PyTorch 0.4 do not count batches, and nothing here needs the count.
    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in {*own, *spare} and not key.endswith("num_batches_tracked")]
    shapes = [
        f"{key} {tuple(state[key].shape)}, not {tuple(tensor.shape)}"
        for key, tensor in own.items()
        if key in state and state[key].shape != tensor.shape
    ]
    said = ((missing, "missing"), (unexpected, "unexpected"), (shapes, "of another shape"))
    return [f"{len(keys)} {what} ({_some(keys)})" for keys, what in said if keys]


def _renamed(provider: Provider, name: str, network: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    try:
        return provider.renamed(name, network, dict(state))
    except Exception:  # the provider's rewriting expects what its authors published, and meets anything here
        return state


def _from_hub(provider: Provider, name: str, folder: Path | None) -> Found:
    source = provider.source(name)
    try:
        if source and not weight_files.hub_cached(source):
            _reach(source)
        return Found(provider.download(name), f"hub {source.removeprefix('hf:')}")
    except TransferError:
        raise
    except Exception as error:  # a hub's libraries fail in many ways; each means that it gave no weights
        files = " or ".join(f"{stem}.safetensors" for stem in weight_files.store_names(name))
        looked = f"no {files} in the store {folder}" if folder else "no store (TRANSFER_WEIGHTS is not set)"
        suffix = ".safetensors" if source.startswith("hf:") or not source else Path(source).suffix
        put = (folder or Path("$TRANSFER_WEIGHTS")) / f"{weight_files.bare(name)}{suffix}"
        raise TransferError(
            f"no weights for {name}: {looked}, and the hub gave none ({_line(error)}); "
            f"{f'save {_address(source)} as' if source else 'put its weights at'} {put}, "
            "name a file with --weights, or train from scratch with --random-init"
        ) from error


def _address(source: str) -> str:
    return f"{constants.ENDPOINT}/{source[3:]}/resolve/main/model.safetensors" if source.startswith("hf:") else source


def _reach(source: str, seconds: float = 4.0) -> None:
    """Raise ConnectionError unless the hub answers in time; the hubs' own clients go on trying for longer."""
    if source.startswith("hf:") and constants.HF_HUB_OFFLINE:
        raise ConnectionError("HF_HUB_OFFLINE is set")
    said: list[Exception | None] = []

    def ask() -> None:
        try:
            request = urllib.request.Request(_address(source), method="HEAD")
            urllib.request.urlopen(request, timeout=seconds).close()
            said.append(None)
        except urllib.error.HTTPError:
            said.append(None)  # it answers, and its own client will say more
        except Exception as error:
            said.append(error)

    # In a thread, since a name server that does not answer knows no timeout.
    asker = threading.Thread(target=ask, daemon=True)
    asker.start()
    asker.join(seconds)
    error = said[0] if said else TimeoutError(f"no answer within {seconds:.0f} s")
    if error:
        host = urllib.parse.urlsplit(_address(source)).hostname
        raise ConnectionError(f"{host} cannot be reached: {_line(error)}")


def _some(keys: Iterable[str], say: int = 4) -> str:
    keys = list(keys)
    return ", ".join(keys[:say]) + (", ..." if len(keys) > say else "")


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
