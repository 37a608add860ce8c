"""Paths of weights files on this machine: store, bundle, hub cache; imports neither torch nor a provider."""

import os
from pathlib import Path

from transfer.errors import TransferError

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
BUNDLE = Path(__file__).parent / "providers" / "glyphnet"
BUNDLE_PRETRAINING = "pretrained on rendered letters, not ImageNet"


def strip_provider(name: str) -> str:
    """Return `name` without its provider, which is the name of its weights file.

    Examples
    --------
    >>> strip_provider("torchvision:squeezenet1_1"), strip_provider("resnet50.a1_in1k")
    ('squeezenet1_1', 'resnet50.a1_in1k')
    """
    return name.rpartition(":")[2]


def find_store(store: Path | None = None) -> Path | None:
    """Return the store: `store`, else ``TRANSFER_WEIGHTS``, else None.

    Raises
    ------
    TransferError
        It is not a folder.
    """
    path = store or os.environ.get("TRANSFER_WEIGHTS")
    if not path:
        return None
    folder = Path(path).expanduser()
    if not folder.is_dir():
        source = "" if store else " (from TRANSFER_WEIGHTS)"
        raise TransferError(f"the weights store {folder}{source} is no folder: give one with <name>.safetensors files")
    return folder


def list_file_names(name: str) -> tuple[str, ...]:
    """Return the file names to look for in a store, without suffix: the full tag before the bare name."""
    full = strip_provider(name)
    return tuple(dict.fromkeys((full, full.partition(".")[0])))


def find_store_file(name: str, folder: Path | None) -> Path | None:
    """Return the weights of `name` in the store `folder`, or None."""
    if folder is None:
        return None
    files = (folder / f"{stem}{suffix}" for stem in list_file_names(name) for suffix in SUFFIXES)
    return next((file for file in files if file.is_file()), None)


def find_bundled_file(name: str) -> Path | None:
    """Return the weights of `name` that come with this package, or None."""
    file = BUNDLE / f"{name}.safetensors"
    return file if name == BUNDLE.name and file.is_file() else None


def is_in_hub_cache(source: str) -> bool:
    """Return whether `source`, a URL or ``hf:organisation/model``, is in the hub client's cache on disk."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    if source.startswith("hf:"):
        hub = os.environ.get("HF_HUB_CACHE") or Path(os.environ.get("HF_HOME") or home / "huggingface") / "hub"
        folder = Path(hub).expanduser() / f"models--{source[3:].partition('@')[0].replace('/', '--')}" / "snapshots"
        return any(file.suffix in (*SUFFIXES, ".npz") for file in folder.glob("*/*"))
    torch_home = Path(os.environ.get("TORCH_HOME") or home / "torch").expanduser()
    return (torch_home / "hub" / "checkpoints" / source.rpartition("/")[2]).is_file()
