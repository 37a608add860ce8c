"""Read a folder tree of images into a table: the two levels above the images are domain and class."""

import functools
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from transfer.data.csv_columns import CSV_SUFFIXES
from transfer.data.images.decode import HEIF_SUFFIXES, NEEDS_HEIF, has_heif
from transfer.data.left_out import LeftOut
from transfer.data.manifest import (
    SPLITS,
    find_manifest_fault,
    is_manifest,
    is_similar_to_manifest,
    read_manifest,
)
from transfer.data.table import DEFAULT_DOMAIN, ImageTable, make_softmax_target
from transfer.errors import TransferError, list_examples

MAX_FOLDER_DEPTH = 4  # split/domain/images/class
_NOT_DECODED = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG"}  # formats that PIL registers but cannot decode itself
LAYOUTS = "class/…, domain/class/… or a CSV manifest"
_MAX_VISITS = 8  # of one folder, through links

FoundImages = list[tuple[tuple[str, ...], str]]  # folder names from the root down, and file name


@functools.cache
def image_suffixes() -> frozenset[str]:
    """Return the lower-case file suffixes of the formats that PIL reads, such as ``.jpg``."""
    suffixes = Image.registered_extensions()  # also loads the plugins of PIL
    readable = (set(Image.OPEN) | {"MPO"}) - _NOT_DECODED  # the JPEG plugin opens MPO
    found = {suffix for suffix, form in suffixes.items() if form in readable}
    return frozenset(found.union(HEIF_SUFFIXES) if has_heif() else found.difference(HEIF_SUFFIXES))


def is_image(path: Path) -> bool:
    """Return whether `path` has the suffix of an image format and is not hidden."""
    return not path.name.startswith(".") and path.suffix.lower() in image_suffixes()


def read_folder(folder: Path, targets: Sequence[str] = (), *, skip_bad: bool = False) -> ImageTable:
    """Read a folder of images, or a CSV manifest, into a table.

    The layout is ``class/…``, ``domain/class/…`` or ``domain/images/class/…``, each also under ``train``,
    ``val`` (``valid``, ``validation``) and ``test``; or it holds one CSV manifest with a ``path`` column. A CSV file
    that names path and object otherwise (``filename,label``) is read if its first image exists. A set without domains
    gets one, named ``all``. Rows are sorted by path, classes in natural order (``c9`` before ``c10``). `targets` are
    further CSV columns to predict, and `skip_bad` leaves out bad rows: see `transfer.data.manifest.read_manifest`.

    Raises
    ------
    TransferError
        A missing folder, a folder without images, or an ambiguous layout.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as root:
    ...     for name in ("ink/a/1.png", "ink/b/1.png", "paint/a/1.png"):
    ...         file = Path(root, name)
    ...         file.parent.mkdir(parents=True, exist_ok=True)
    ...         file.touch()
    ...     table = read_folder(Path(root))
    >>> table.domains, table.objects, table.object
    (('ink', 'paint'), ('a', 'b'), array([0, 1, 0]))
    """
    folder = Path(folder).expanduser().absolute()
    if folder.is_file() and folder.suffix.lower() in CSV_SUFFIXES:
        return read_manifest(folder, targets, skip_bad=skip_bad)
    if not folder.is_dir():
        what = "is not a folder or a CSV manifest" if folder.exists() else "does not exist"
        raise TransferError(f"{folder} {what}: give a folder of images, or a CSV manifest")
    manifest, unread = _find_manifest(folder)
    if manifest:
        return read_manifest(manifest, targets, skip_bad=skip_bad)
    if targets:
        raise TransferError(f"further targets ({', '.join(targets)}) need a CSV manifest; {folder} has none")
    images, empty, ignored = _walk(folder)
    notes = (*_notes(empty, ignored), *unread)
    try:
        if not images:
            heif = [note for note in describe_ignored(ignored) if "HEIC" in note]
            raise TransferError(f"no image in {folder}: {'; '.join(heif) or 'expected ' + LAYOUTS}")
        images.sort()
        paths = [str(folder.joinpath(*where, name)) for where, name in images]
        table = arrange_images(images, paths, source=str(folder), name=folder.name, notes=notes)
        return replace(table, left_out=explain_left_out(ignored))
    except TransferError as error:
        raise TransferError("; ".join((str(error), *unread))) from None


def _find_manifest(folder: Path) -> tuple[Path | None, list[str]]:
    """Return the CSV manifest in `folder`, if any, and the similar files that cannot be read, with the reason.

    Raises
    ------
    TransferError
        There are several.
    """
    files = [file for file in sorted(folder.glob("*")) if file.suffix.lower() in CSV_SUFFIXES]
    found, unread = [file for file in files if is_manifest(file)], []
    if not found:
        for file in filter(is_similar_to_manifest, files):
            if fault := find_manifest_fault(file):
                unread.append(f"{file.name} is not read as a manifest: {fault}")
            else:
                found.append(file)
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise TransferError(f"{folder} holds {len(found)} CSV manifests ({names}): give the one you mean")
    return (found[0] if found else None), unread


def arrange_images(
    images: FoundImages, paths: Sequence[str], *, source: str, name: str, notes: tuple[str, ...] = ()
) -> ImageTable:
    """Return the table of at least one of `images`, whose folders name domain, class and split.

    `paths` are their paths or addresses; `source` is the root, for error messages.

    Raises
    ------
    TransferError
        An ambiguous layout.
    """
    split, levels = _take_splits(source, [where for where, _ in images])
    levels = _drop_images_level(levels)
    depths = {len(level): i for i, level in reversed(list(enumerate(levels)))}
    shown = ["/".join((*where, file)) for where, file in images]
    if len(depths) > 1:
        examples = " and ".join(repr(shown[i]) for _, i in sorted(depths.items()))
        raise TransferError(
            f"{source} holds images at mixed depths ({examples}): "
            "expected class/… throughout, or domain/class/… throughout"
        )
    depth = next(iter(depths))
    if depth == 0:
        raise TransferError(
            f"{source} holds images outside any class folder ({shown[0]!r}): "
            "expected class/…, domain/class/…, or a CSV manifest that names each image's object"
        )
    if depth > 2:
        raise TransferError(
            f"{source} holds images {depth} levels deep ({shown[0]!r}): expected class/…, domain/class/… or "
            "domain/images/class/…, or a CSV manifest"
        )
    return ImageTable(
        paths=np.array(paths),
        targets={
            "object": make_softmax_target([level[-1] for level in levels]),
            "domain": make_softmax_target([level[0] if depth == 2 else DEFAULT_DOMAIN for level in levels]),
        },
        split=np.array(split),
        group=np.full(len(images), ""),
        name=name,
        notes=notes,
    )


def describe_ignored(files: Sequence[str]) -> tuple[str, ...]:
    """Return notes on `files` that are not read: HEIC images without the package for these, and any others."""
    heif = [file for file in files if file.lower().endswith(HEIF_SUFFIXES) and not has_heif()]
    others, notes = len(files) - len(heif), []
    if heif:
        notes.append(f"{len(heif)} HEIC file{'s' * (len(heif) > 1)} not read ({list_examples(heif, 3)}): {NEEDS_HEIF}")
    if others:
        notes.append(f"{others} file{'s' * (others > 1)} ignored: not an image, or hidden")
    return tuple(notes)


def explain_left_out(files: Sequence[str], where: str = "") -> tuple[LeftOut, ...]:
    """Return each of `files` that are not read, with the reason; `where` is the shard that holds them.

    Examples
    --------
    >>> [tuple(each) for each in explain_left_out(["a/.hidden.png", "a/notes.txt"])]
    [('a/.hidden.png', 'hidden', ''), ('a/notes.txt', 'not an image', '')]
    """
    found = []
    for file in files:
        needs = file.lower().endswith(HEIF_SUFFIXES) and not has_heif()
        hidden = file.rpartition("/")[2].startswith(".")
        found.append(LeftOut(file, "hidden" if hidden else NEEDS_HEIF if needs else "not an image", where))
    return tuple(found)


def _notes(empty: list[str], ignored: list[str]) -> tuple[str, ...]:
    notes = []
    if empty:
        notes.append(f"{len(empty)} folder{'s' * (len(empty) > 1)} without an image skipped: {list_examples(empty)}")
    return (*notes, *describe_ignored(ignored))


def _walk(root: Path) -> tuple[FoundImages, list[str], list[str]]:
    """Return the images, the folders without images, and the files that are ignored."""
    images: FoundImages = []
    empty: list[str] = []
    ignored: list[str] = []
    top = os.path.realpath(root)
    entered: Counter[str] = Counter()
    pending: list[tuple[tuple[str, ...], str, frozenset[str]]] = [((), top, frozenset(map(str, Path(top).parents)))]
    while pending:
        where, real, above = pending.pop()
        if real in above:
            continue  # a link to a parent folder
        if len(where) > MAX_FOLDER_DEPTH + 1:  # one extra level is enough to report an error
            empty.append("/".join(where) + " (too deep)")
            continue
        entered[real] += 1
        if entered[real] > _MAX_VISITS:  # a few links among folders give exponentially many paths
            raise TransferError(f"{root}: links lead to {real} repeatedly: remove them, or give a CSV manifest")
        try:
            entries = sorted(os.scandir(real), key=lambda e: e.name)
        except OSError as error:
            raise TransferError(f"cannot read the folder {root.joinpath(*where)}: {error.strerror or error}") from error
        leaf = True
        for entry in entries:
            if _is_folder(entry):
                if not entry.name.startswith("."):
                    leaf = False
                    inner = os.path.realpath(entry.path) if entry.is_symlink() else entry.path
                    pending.append(((*where, entry.name), inner, above | {real}))
            elif is_image(Path(entry.name)):
                leaf = False
                images.append((where, entry.name))
            else:
                ignored.append("/".join((*where, entry.name)))
        if leaf and where:
            empty.append("/".join(where))
    return images, sorted(empty), ignored


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or to a folder without permission
        return False


def _take_splits(source: str, levels: list[tuple[str, ...]]) -> tuple[list[str], list[tuple[str, ...]]]:
    """Return the split of each image, ``""`` if none, and its levels below that."""
    tops = {level[0] for level in levels if level}
    named = {top for top in tops if top.lower() in SPLITS}
    if not named or (named != tops and max(map(len, levels)) == 1):  # a class may be called "train"
        return [""] * len(levels), levels
    if named != tops or () in levels:
        others = ", ".join(sorted(tops - named)[:3]) or "images"
        raise TransferError(
            f"{source} holds splits ({', '.join(sorted(named))}) beside {others}: "
            "put every image under train, val or test, or none"
        )
    return [SPLITS[level[0].lower()] for level in levels], [level[1:] for level in levels]


def _drop_images_level(levels: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Drop an uninformative level named ``images`` above the classes."""
    if all(len(level) == 2 and level[0].lower() == "images" for level in levels):
        return [level[1:] for level in levels]
    return [(level[0], level[2]) if len(level) == 3 and level[1].lower() == "images" else level for level in levels]
