"""Office-31: where it lies, how it is fetched, and whether it is whole.

31 objects of an office in three domains: amazon 2,817 images, dslr 498, webcam 795, 4,110 in all (the often
quoted 4,652 is not this set's count). 120 of its files are in 49 groups of byte-identical ones, 71 more than
there are pictures; all are in amazon and none across objects. Saenko, Kulis, Fritz, Darrell, "Adapting Visual
Category Models to New Domains", ECCV 2010.
"""

import hashlib
import os
import re
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path

from tqdm import tqdm

from transfer.data.sets.download import fetch
from transfer.data.sets.unpack import unpack
from transfer.errors import TransferError
from transfer.runtime.files import get_cache_folder

MIRRORS = (
    "https://github.com/syorami/DDC-transfer-learning/archive/9090f7fdd7c149c6158c5145b516abee97bb0944.zip",
    # what https://people.eecs.berkeley.edu/~jhoffman/domainadapt/ links to: domain_adaptation_images.tar.gz
    "https://drive.usercontent.google.com/download?id=0B4IapRTv9pJ1WGZVd1VDMmhwdlE"
    "&resourcekey=0-gNMHVtZfRAyO_t2_WrOunA&export=download&confirm=t",
)
DOMAINS = ("amazon", "dslr", "webcam")
_MEMBER = re.compile(rf"(?:^|/)((?:{'|'.join(DOMAINS)})/images/[^/]+/frame_\d+\.jpg)$", re.IGNORECASE)


@dataclass(frozen=True)
class Verification:
    """How a copy of the set differs from its manifest; paths relative to the set's folder.

    Parameters
    ----------
    missing : tuple of str
        In the manifest, not in the folder.
    altered : tuple of str
        In both, with other bytes.
    extra : tuple of str
        Not in the manifest, and of new content.
    duplicate : tuple of str
        Not in the manifest, with the bytes of a file that is.
    """

    missing: tuple[str, ...]
    altered: tuple[str, ...]
    extra: tuple[str, ...]
    duplicate: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether the copy is exactly the set."""
        return not (self.missing or self.altered or self.extra or self.duplicate)

    def lines(self) -> list[str]:
        """Return a line for each file that differs, such as ``missing dslr/images/mug/frame_0001.jpg``."""
        return [f"{kind} {name}" for kind, names in vars(self).items() for name in names]

    def __str__(self) -> str:
        found = {k: v for k, v in vars(self).items() if v}
        return "; ".join(
            f"{len(names)} {kind}: {', '.join(names[:3])}{', …' * (len(names) > 3)}" for kind, names in found.items()
        )


def manifest() -> dict[str, str]:
    """Return the sha256 of each of the 4,110 files by path, such as ``dslr/images/mug/frame_0001.jpg``."""
    return read_manifest(files("transfer.data.sets").joinpath("office31.sha256").read_text(encoding="utf-8"))


def read_manifest(text: str) -> dict[str, str]:
    """Return path to digest from lines as sha256sum writes them.

    Examples
    --------
    >>> read_manifest("00ff  a/b c.jpg")
    {'a/b c.jpg': '00ff'}
    """
    pairs = (line.split("  ", 1) for line in text.splitlines())
    return {path: digest for digest, path in pairs}


def office31(data_root: Path | None = None) -> Path:
    """Return the folder of an existing copy, used in place: the first of `places` that has the three domains.

    Raises
    ------
    TransferError
        There is none.
    """
    for folder in places(data_root):
        if all((folder / domain).is_dir() for domain in DOMAINS):
            return folder
    looked = ", ".join(map(str, places(data_root)))
    raise TransferError(
        f"Office-31 is not here (looked in {looked}): "
        "`transfer data office31` fetches it, --data-root says where it lies"
    )


def places(data_root: Path | None = None) -> list[Path]:
    """Return where a copy may lie: in `data_root` or ``TRANSFER_DATA``, or just there, or in the cache."""
    root = data_root or os.environ.get("TRANSFER_DATA")
    given = [Path(root).expanduser() / "office31", Path(root).expanduser()] if root else []
    return [*given, get_cache_folder("data", "office31")]


def fetch_office31(
    destination: Path,
    mirrors: Sequence[str] = MIRRORS,
    expected: dict[str, str] | None = None,
) -> Path:
    """Fetch the set into `destination`, whole and verified, unless it is there already.

    Parameters
    ----------
    destination : Path
    mirrors : sequence of str
        Archives that hold ``<domain>/images/<object>/frame_NNNN.jpg`` at any depth.
    expected : dict of str to str, optional
        sha256 by path (default: `manifest`).

    Raises
    ------
    TransferError
        No mirror gave the set, or `destination` holds something else.
    """
    expected = manifest() if expected is None else expected
    if destination.is_dir() and any(destination.iterdir()):
        found = verify(destination, expected)
        if not found.ok:
            raise TransferError(f"{destination} is not a whole copy ({found}): mend it, or move it away")
        return destination
    archive = destination.with_name(f".{destination.name}.archive")
    fetch(mirrors, archive, accept=partial(_install, destination=destination, expected=expected))
    archive.unlink()
    return destination


def _install(archive: Path, destination: Path, expected: dict[str, str]) -> None:
    """Unpack the archive beside `destination` and, if it is the set, move it there."""
    trial = destination.with_name(f".{destination.name}.trial")
    shutil.rmtree(trial, ignore_errors=True)
    try:
        unpack(archive, trial, keep=_keep)
        found = verify(trial, expected)
        if not found.ok:
            raise TransferError(f"the archive is not Office-31 as it is known: {found}")
        trial.replace(destination)
    finally:
        shutil.rmtree(trial, ignore_errors=True)


def _keep(name: str) -> str | None:
    match = _MEMBER.search(name)
    return match[1].lower() if match else None


def verify(folder: Path, expected: dict[str, str] | None = None, workers: int | None = None) -> Verification:
    """Compare every file in `folder`, save hidden ones, with the manifest.

    Parameters
    ----------
    folder : Path
    expected : dict of str to str, optional
        sha256 by path (default: `manifest`).
    workers : int, optional
        Threads (default: one per core).
    """
    expected = manifest() if expected is None else expected
    relative = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    names = sorted(path.as_posix() for path in relative if not any(p.startswith(".") for p in path.parts))
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        digests = pool.map(lambda name: _sha256(folder / name), names)
        found = dict(zip(names, tqdm(digests, "verifying", len(names), unit="file", disable=None), strict=True))
    contents = set(expected.values())
    others = sorted(found.keys() - expected.keys())
    return Verification(
        missing=tuple(sorted(expected.keys() - found.keys())),
        altered=tuple(name for name in names if name in expected and found[name] != expected[name]),
        extra=tuple(name for name in others if found[name] not in contents),
        duplicate=tuple(name for name in others if found[name] in contents),
    )


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise TransferError(f"cannot read {path}: {error.strerror or error}") from error
