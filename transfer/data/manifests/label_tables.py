"""Which table in a folder of images names their labels, and why the others are not read."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from transfer.data.images.file_kinds import is_image, is_passed_over
from transfer.data.manifests.csv_columns import CSV_SUFFIXES, OTHER_NAMES, find_column, read_header
from transfer.data.manifests.manifest import find_manifest_fault, is_manifest, is_similar_to_manifest
from transfer.data.split_names import read_splits
from transfer.errors import TransferError, did_you_mean

FOLDERS = "folders"
"""The value of ``--labels`` by which folders name the classes, whatever tables there are."""

UnreadTable = tuple[str, str]
"""Path of a table in the folder, and why it is not read."""

_OTHER_TABLES = (".xlsx", ".xls", ".ods", ".parquet", ".feather", ".arrow", ".jsonl", ".ndjson")
_OPENED = 20  # tables below the top folder; there may be one beside each image


def find_label_tables(folder: Path) -> tuple[dict[Path, str], list[UnreadTable]]:
    """Return the tables in `folder` that name the labels, with the split of their rows, and those that are not read.

    One with a column ``path`` has precedence; another is taken if it can be read and most of its first images exist.
    Several are taken together if their names are those of splits: ``train.csv`` and ``test.csv``.

    Raises
    ------
    TransferError
        There are several others.
    """
    files = [file for file in sorted(folder.glob("*")) if not is_passed_over(file.name)]
    tables = [file for file in files if file.suffix.lower() in CSV_SUFFIXES]
    found, unread = [file for file in tables if is_manifest(file)], []
    for file in files:
        if file in tables and file not in found and (fault := _find_fault(file, found)):
            unread.append((file.name, fault))
        elif file.suffix.lower() in _OTHER_TABLES and file.is_file():
            unread.append((file.name, "tables of this format are not read, save it as CSV"))
    if not found:
        named = {name for name, _ in unread}
        found = [file for file in tables if is_similar_to_manifest(file) and file.name not in named]
    splits = read_splits(file.stem for file in found)
    if len(found) > 1 and "train" in splits.values() and all(splits.values()):
        return {file: splits[file.stem] for file in found}, unread
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise TransferError(
            f"{folder} holds {len(found)} CSV manifests ({names}): choose one, such as --labels {found[0].name}"
        )
    return dict.fromkeys(found, ""), unread


def find_wrapped_folder(folder: Path) -> Path | None:
    """Return the only folder in `folder`, if there is neither an image nor a table beside it."""
    files = [file for file in sorted(folder.glob("*")) if not is_passed_over(file.name)]
    inner = [file for file in files if file.is_dir()]
    beside = any(is_image(file) or file.suffix.lower() in CSV_SUFFIXES for file in files if file not in inner)
    return inner[0] if len(inner) == 1 and not beside else None


def _find_fault(file: Path, preferred: Sequence[Path]) -> str:
    """Return why a table without a column ``path`` is not read; an empty string for one that is, or for plain text."""
    names = read_header(file)
    missing = [meaning for meaning in OTHER_NAMES if not find_column(names, meaning)]
    if missing and any(is_image(Path(name)) for name in names):
        return "its first line is no header: write path,object above it"
    if missing:
        return "" if file.suffix.lower() == ".txt" else f"no column is the {' or the '.join(missing)}"
    return f"{preferred[0].name} is" if preferred else find_manifest_fault(file)


def find_inner_tables(folder: Path, files: Iterable[str]) -> list[UnreadTable]:
    """Return which of `files`, paths below `folder`, are tables of images in an inner folder."""
    inner = [name for name in files if "/" in name and Path(name).suffix.lower() in CSV_SUFFIXES]
    tables = [name for name in inner[:_OPENED] if is_similar_to_manifest(folder / name)]
    return [(name, f"it is not in the top folder, --labels {name} reads it") for name in tables]


def locate_labels(folder: Path, labels: str) -> Path:
    """Return the file that ``--labels`` names, relative to the working directory or to the `folder` of images.

    Raises
    ------
    TransferError
        There is none.
    """
    given = Path(labels).expanduser()
    for file in (given.absolute(), folder / given):
        if file.is_file():
            return file
    near = did_you_mean(given.name, [FOLDERS, "nested", *(file.name for file in folder.glob("*") if file.is_file())])
    raise TransferError(
        f"--labels: no file {labels}{near}, neither here nor in {folder}: give a CSV file, folders or nested"
    )
