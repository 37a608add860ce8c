"""Office-31: locate, download and verify the data set.

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

from tqdm.auto import tqdm

from transfer.data.sets.download import download_file
from transfer.data.sets.unpack import unpack_archive
from transfer.errors import TransferError, list_examples
from transfer.runtime.files import get_cache_folder

MIRRORS = (
    "https://github.com/syorami/DDC-transfer-learning/archive/9090f7fdd7c149c6158c5145b516abee97bb0944.zip",
    # what https://people.eecs.berkeley.edu/~jhoffman/domainadapt/ links to: domain_adaptation_images.tar.gz
    "https://drive.usercontent.google.com/download?id=0B4IapRTv9pJ1WGZVd1VDMmhwdlE"
    "&resourcekey=0-gNMHVtZfRAyO_t2_WrOunA&export=download&confirm=t",
)
OFFICE31_DOMAINS = ("amazon", "dslr", "webcam")
_MEMBER = re.compile(rf"(?:^|/)((?:{'|'.join(OFFICE31_DOMAINS)})/images/[^/]+/frame_\d+\.jpg)$", re.IGNORECASE)


@dataclass(frozen=True)
class Verification:
    """How a copy of the set differs from the published checksums; paths relative to the set's folder."""

    missing: tuple[str, ...]  # files of the set that the folder lacks
    altered: tuple[str, ...]  # in both, with other bytes
    extra: tuple[str, ...]  # not in the set
    duplicate: tuple[str, ...]  # not in the set, but with the bytes of a file that is

    @property
    def ok(self) -> bool:
        """Whether the copy is identical to the published set."""
        return not (self.missing or self.altered or self.extra or self.duplicate)

    def lines(self) -> list[str]:
        """Return a line for each file that differs, such as ``missing dslr/images/mug/frame_0001.jpg``."""
        return [f"{kind} {name}" for kind, names in vars(self).items() for name in names]

    def __str__(self) -> str:
        return "; ".join(
            f"{len(names)} {kind}: {list_examples(names, 3)}" for kind, names in vars(self).items() if names
        )


def read_checksums() -> dict[str, str]:
    """Return the sha256 of each of the 4,110 files by path, such as ``dslr/images/mug/frame_0001.jpg``."""
    return parse_checksums(files("transfer.data.sets").joinpath("office31.sha256").read_text(encoding="utf-8"))


def parse_checksums(text: str) -> dict[str, str]:
    """Return digests by path from the output format of sha256sum.

    Examples
    --------
    >>> parse_checksums("00ff  a/b c.jpg")
    {'a/b c.jpg': '00ff'}
    """
    pairs = (line.split("  ", 1) for line in text.splitlines())
    return {path: digest for digest, path in pairs}


def find_office31(data_root: Path | None = None) -> Path:
    """Return the folder of an existing copy, used in place: the first of `list_locations` that has the three domains.

    Raises
    ------
    TransferError
        There is none.
    """
    locations = list_locations(data_root)
    if copies := [*filter(has_domains, locations)]:
        return copies[0]
    raise TransferError(
        f"Office-31 was not found (searched {', '.join(map(str, locations))}): "
        "`transfer data office31` fetches it, --data-root says where it lies"
    )


def has_domains(folder: Path) -> bool:
    """Return whether `folder` holds the three domains of the set."""
    return all((folder / domain).is_dir() for domain in OFFICE31_DOMAINS)


def list_locations(data_root: Path | None = None) -> list[Path]:
    """Return possible locations of a copy: below or at `data_root` or ``TRANSFER_DATA``, and in the cache."""
    root = data_root or os.environ.get("TRANSFER_DATA")
    given = [Path(root).expanduser() / "office31", Path(root).expanduser()] if root else []
    return [*given, get_cache_folder("data", "office31")]


def fetch_office31(destination: Path, mirrors: Sequence[str] = MIRRORS, expected: dict[str, str] | None = None) -> Path:
    """Download the set into `destination` and verify it, unless it is present.

    Parameters
    ----------
    mirrors : sequence of str
        Archives that hold ``<domain>/images/<object>/frame_NNNN.jpg`` at any depth.
    expected : dict of str to str, optional
        sha256 by path (default: `read_checksums`).

    Raises
    ------
    TransferError
        No mirror gave the set, or `destination` holds something else.
    """
    expected = read_checksums() if expected is None else expected
    if destination.is_dir() and any(destination.iterdir()):
        found = verify_files(destination, expected)
        if not found.ok:
            raise TransferError(f"{destination} is not a complete copy ({found}): repair it, or move it away")
        return destination
    archive = destination.with_name(f".{destination.name}.archive")
    download_file(mirrors, archive, accept=partial(_install, destination=destination, expected=expected))
    archive.unlink()
    return destination


def _install(archive: Path, destination: Path, expected: dict[str, str]) -> None:
    """Unpack the archive beside `destination`, verify it, and move it there."""
    trial = destination.with_name(f".{destination.name}.trial")
    shutil.rmtree(trial, ignore_errors=True)
    try:
        unpack_archive(archive, trial, keep=_keep)
        found = verify_files(trial, expected)
        if not found.ok:
            raise TransferError(f"the archive differs from the published Office-31: {found}")
        trial.replace(destination)
    finally:
        shutil.rmtree(trial, ignore_errors=True)


def _keep(name: str) -> str | None:
    match = _MEMBER.search(name)
    return match[1].lower() if match else None


def verify_files(folder: Path, expected: dict[str, str] | None = None, workers: int | None = None) -> Verification:
    """Compare every file in `folder`, except hidden ones, with the checksums.

    `expected` has the sha256 by path (default: :func:`read_checksums`); `workers` threads read (default: one per core).
    """
    expected = read_checksums() if expected is None else expected
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
