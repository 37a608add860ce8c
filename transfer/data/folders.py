"""Read a folder tree of images into a table: by its CSV manifest, or by the names of its folders."""

import contextlib
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from transfer.data.images.file_kinds import describe_left_out, is_lost_image
from transfer.data.images.image_tree import ImageTree, walk_images
from transfer.data.label_sets.cells import MULTILABEL
from transfer.data.label_sets.nested_folders import NESTED, NESTED_TARGET, arrange_nested_images
from transfer.data.layout import LAYOUTS, arrange_images
from transfer.data.left_out import LeftOut
from transfer.data.manifests.csv_columns import CSV_SUFFIXES
from transfer.data.manifests.label_tables import (
    FOLDERS,
    UnreadTable,
    find_inner_tables,
    find_label_tables,
    find_wrapped_folder,
    locate_labels,
)
from transfer.data.manifests.manifest import read_manifest, read_manifests
from transfer.data.table import ImageTable
from transfer.errors import MissingColumn, TransferError, list_examples

_MAX_DEPTH = 6  # of folders: wrapper/split/domain/images/class, and one more to report an error


def read_folder(
    folder: Path,
    targets: Sequence[str] = (),
    *,
    labels: str | None = None,
    skip_bad: bool = False,
    flat_domain: str = "",
) -> ImageTable:
    """Read a folder of images, or a CSV manifest, into a table.

    The layout is ``class/…``, ``domain/class/…`` or ``domain/images/class/…``, each also with a level of splits; see
    `transfer.data.layout`. Or the folder holds a CSV manifest; see `transfer.data.manifests.label_tables`. A set
    without domains gets one, named ``all``. Rows are sorted by path, classes in natural order (``c9`` before ``c10``).

    Parameters
    ----------
    folder : Path
    targets : sequence of str
        Further CSV columns to predict: see `transfer.data.manifests.manifest.read_manifest`.
    labels : str, optional
        The table that names the labels, or ``folders``, or ``nested``: `transfer.data.label_sets.nested_folders`. By
        default the table in the folder, if there is one.
    skip_bad : bool
        Leave out bad rows of a manifest: see `transfer.data.manifests.manifest.read_manifest`.
    flat_domain : str
        A domain that needs no class folders: see `transfer.data.layout.arrange_images`.

    Raises
    ------
    TransferError
        A missing folder, a folder without images or with a class that loses all of them, or an ambiguous layout.

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
        if labels:
            raise TransferError(f"--labels: {folder.name} is a table itself: give the folder of its images as --data")
        return read_manifest(folder, targets, skip_bad=skip_bad)
    if not folder.is_dir():
        what = "is not a folder or a CSV manifest" if folder.exists() else "does not exist"
        raise TransferError(f"{folder} {what}: give a folder of images, or a CSV manifest")
    arrange = partial(arrange_images, flat_domain=flat_domain)
    if labels == FOLDERS:
        return _read_tree(folder, targets, None, arrange)
    if labels == NESTED:
        further = {*targets} - {NESTED_TARGET, f"{NESTED_TARGET}:{MULTILABEL}"}
        return _read_tree(folder, further, None, arrange_nested_images)
    read = partial(read_manifests, targets=targets, skip_bad=skip_bad)
    if labels:
        return _read_labels(folder, {locate_labels(folder, labels): ""}, None, read)
    tables, unread = find_label_tables(folder)
    if not tables and (inner := find_wrapped_folder(folder)):
        tables, more = find_label_tables(inner)
        if tables:
            return _read_labels(inner, tables, more, read)
        unread += [(f"{inner.name}/{name}", fault) for name, fault in more]
    return _read_labels(folder, tables, unread, read) if tables else _read_tree(folder, targets, unread, arrange)


def _read_labels(
    folder: Path,
    files: Mapping[Path, str],
    unread: Sequence[UnreadTable] | None,
    read: Callable[..., ImageTable],
) -> ImageTable:
    """Return the table of the manifests `files` for the images of `folder`, as `read` reads them.

    `unread` are the other tables of the folder, None if the user named the manifest.

    Raises
    ------
    TransferError
        The manifest has a fault.
    """
    tree = ImageTree()
    classes: tuple[str, ...] = ()
    with contextlib.suppress(TransferError):  # a manifest needs no tree that can be read
        tree = walk_images(folder, _MAX_DEPTH)
        if tree.images and unread is not None:
            classes = arrange_images(tree.images, [name for _, name in tree.images], source="", name="").objects
    try:
        name = next(iter(files)).stem if len(files) == 1 else folder.name
        table = read(files, folders=[folder], name=name)
    except TransferError as error:
        hint = f"; --labels {FOLDERS} reads the class folders instead" if len(classes) > 1 else ""
        raise TransferError(f"{error}{hint}") from None
    source = ", ".join(file.name for file in files)
    choices = [*table.choices, *_describe_unread(unread or [])]
    choices += [f"{file.name} lists the {split} images" for file, split in files.items() if split]
    if len(classes) > 1:
        verb = "names" if len(files) == 1 else "name"
        what = f"{verb} the labels, not the folders {list_examples(classes)}"
        choices.append(f"{source} {what} (--labels {FOLDERS} reads these)")
    listed = {os.path.normpath(path) for path in table.paths.tolist()}
    others = [LeftOut("/".join((*where, name)), f"not in {source}") for where, name in tree.images]
    others += [file for file in tree.explain_ignored(folder) if is_lost_image(file.reason)]
    left_out = sorted(other for other in others if str(folder / other.path) not in listed)
    notes = [*choices, *table.notes[len(table.choices) :], *(f"left out: {s}" for s in describe_left_out(left_out))]
    return replace(table, notes=tuple(notes), choices=tuple(choices), left_out=(*table.left_out, *left_out))


def _describe_unread(tables: Sequence[UnreadTable]) -> list[str]:
    return [f"{name} is not read as a manifest: {fault}" for name, fault in tables]


def _read_tree(
    folder: Path, targets: Collection[str], unread: Sequence[UnreadTable] | None, arrange: Callable[..., ImageTable]
) -> ImageTable:
    """Return the table of `folder` by the names of its folders, as `arrange` reads them.

    `unread` are its tables, None if it does not matter.

    Raises
    ------
    TransferError
        No image, a class without one that can be read, or an ambiguous layout.
    """
    if targets:
        raise MissingColumn(f"further targets ({', '.join(targets)}) need a CSV manifest; {folder} has none", targets)
    tree = walk_images(folder, _MAX_DEPTH)
    images, empty = tree.images, tree.empty
    passed = {} if unread is None else dict(find_inner_tables(folder, tree.ignored)) | dict(unread)
    ignored = [file._replace(reason=passed.get(file.path, file.reason)) for file in tree.explain_ignored(folder)]
    shown = describe_left_out(file for file in ignored if file.path not in passed)
    not_read = _describe_unread(list(passed.items()))
    try:
        if not images:
            raise TransferError(f"no image in {folder}: {'; '.join(shown) or 'expected ' + LAYOUTS}")
        lost = [file for file in ignored if file.path not in passed and is_lost_image(file.reason)]
        _refuse_lost_folders(folder, [where for where, _ in images], lost)
        images.sort()
        paths = [os.path.join(folder, *where, name) for where, name in images]
        table = arrange(images, paths, source=str(folder), name=folder.name)
    except TransferError as error:
        raise TransferError("; ".join((str(error), *not_read))) from None
    choices = [*(f"{line}; the folders name the classes (--labels FILE decides)" for line in not_read), *table.choices]
    skipped = f"{len(empty)} folder{'s' * (len(empty) > 1)} without an image skipped: {list_examples(empty)}"
    notes = [*choices, *table.notes[len(table.choices) :], *([skipped] if empty else [])]
    notes += (f"left out: {line}" for line in shown)
    return replace(table, notes=tuple(notes), choices=tuple(choices), left_out=(*ignored, *table.left_out))


def _refuse_lost_folders(root: Path, folders: Sequence[tuple[str, ...]], files: Sequence[LeftOut]) -> None:
    """Raise if a folder would be a class, but all its images are among the `files` that cannot be read.

    `folders` are those of the images that can be read.
    """
    direct = set(folders)
    above = {where[:depth] for where in direct for depth in range(len(where) + 1)}
    parents = {where[:-1] for where in above if where}
    lost: dict[str, list[LeftOut]] = {}
    for file in files:
        where = tuple(file.path.split("/")[:-1])
        if where in above:
            continue
        depth = next(depth for depth in range(1, len(where) + 1) if where[:depth] not in above)
        parent = where[: depth - 1]
        if parent in parents or parent not in direct:  # else it is a folder within a class
            lost.setdefault("/".join(where[:depth]), []).append(file)
    if lost:
        kinds = "; ".join(line for group in lost.values() for line in describe_left_out(group))
        raise TransferError(
            f"{root}: no image of the folder{'s' * (len(lost) > 1)} {list_examples(list(lost))} can be read ({kinds}): "
            "mend that, or move the folder away"
        )
