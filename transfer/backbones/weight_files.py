"""Where the weights of a backbone can lie on this machine; imports neither torch nor a provider."""

import os
from pathlib import Path

from transfer.errors import TransferError

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
BUNDLE = Path(__file__).parent / "providers" / "glyphnet"


def bare(name: str) -> str:
    """Return `name` without its provider: what its weights file is called.

    Examples
    --------
    >>> bare("torchvision:squeezenet1_1"), bare("resnet50.a1_in1k")
    ('squeezenet1_1', 'resnet50.a1_in1k')
    """
    return name.rpartition(":")[2]


def store_folder(store: Path | None = None) -> Path | None:
    """Return the store: `store`, else ``TRANSFER_WEIGHTS``, else None.

    Raises
    ------
    TransferError
        It is not a folder.
    """
    said = store or os.environ.get("TRANSFER_WEIGHTS")
    if not said:
        return None
    folder = Path(said).expanduser()
    if not folder.is_dir():
        source = "" if store else " (from TRANSFER_WEIGHTS)"
        raise TransferError(f"the weights store {folder}{source} is no folder: name one with <name>.safetensors files")
    return folder


def store_names(name: str) -> tuple[str, ...]:
    """Return the file names to look for in a store, without suffix: the full tag before the bare name."""
    full = bare(name)
    return tuple(dict.fromkeys((full, full.partition(".")[0])))


def store_file(name: str, folder: Path | None) -> Path | None:
    """Return the weights of `name` in the store `folder`, or None."""
    if folder is None:
        return None
    files = (folder / f"{stem}{suffix}" for stem in store_names(name) for suffix in SUFFIXES)
    return next((file for file in files if file.is_file()), None)


def bundle_file(name: str) -> Path | None:
    """Return the weights of `name` that come with this package, or None."""
    file = BUNDLE / f"{name}.safetensors"
    return file if name == BUNDLE.name and file.is_file() else None


def hub_cached(source: str) -> bool:
    """Return whether the hub's downloader already keeps `source` on disk.

    Parameters
    ----------
    source : str
        A web address, or ``hf:organisation/model`` on the Hugging Face hub.
    """
    home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    if source.startswith("hf:"):
        hub = os.environ.get("HF_HUB_CACHE") or Path(os.environ.get("HF_HOME") or home / "huggingface") / "hub"
        folder = Path(hub).expanduser() / f"models--{source[3:].partition('@')[0].replace('/', '--')}" / "snapshots"
        return any(file.suffix in (*SUFFIXES, ".npz") for file in folder.glob("*/*"))
    torch_home = Path(os.environ.get("TORCH_HOME") or home / "torch").expanduser()
    return (torch_home / "hub" / "checkpoints" / source.rpartition("/")[2]).is_file()
