"""Load the table of a named set, a folder, a CSV manifest or tar shards."""

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from transfer.data.class_names import merge_spellings
from transfer.data.corrections import apply_corrections
from transfer.data.folders import read_folder
from transfer.data.label_sets.combinations import use_label_sets
from transfer.data.label_sets.refusals import needs_objects
from transfer.data.manifests.csv_columns import CSV_SUFFIXES
from transfer.data.sets import office31
from transfer.data.shards.reader import find_shards, read_shards
from transfer.data.table import ImageTable
from transfer.errors import MissingColumn, TransferError, did_you_mean
from transfer.runtime.escape import escape_unprintable

NAMED = ("digits", "office31")

log = logging.getLogger(__name__)


def load_table(
    data: str,
    data_root: Path | None = None,
    targets: Sequence[str] = (),
    *,
    labels: str | None = None,
    skip_bad: bool = False,
    flat_domain: str = "",
    corrections: Path | None = None,
) -> ImageTable:
    """Return the table of a named set, a folder of images, a CSV manifest or shards, also below `data_root`.

    Names of classes, domains and groups that are one name written in several ways are merged, and a note says so:
    see `transfer.data.class_names`. Without objects, sets of labels stand for them: see
    `transfer.data.label_sets.combinations`.

    Parameters
    ----------
    data : str
        One of `NAMED`, or a path; write ``./digits`` for a folder of that name. Shards are a tar or a URL of one,
        either with ranges such as ``{000..009}``, a glob of tars, or a folder of them.
    data_root : Path, optional
        Where named sets lie (default: ``TRANSFER_DATA``, else the cache).
    targets : sequence of str
        Further columns of a CSV, or keys of the samples' JSON, to learn.
    labels : str, optional
        A table that names the labels of the images in a folder, or ``folders``: see `transfer.data.folders`.
    skip_bad : bool
        Leave out the rows of a CSV manifest that have no file or another number of cells than the header.
    flat_domain : str
        A domain of a folder that needs no class folders: see `transfer.data.layout.arrange_images`.
    corrections : Path, optional
        Decisions of a review that change the labels: see `transfer.data.corrections`.

    Raises
    ------
    TransferError
        Neither a named set nor a readable path.
    """
    table = _read(data, data_root, targets, labels=labels, skip_bad=skip_bad, flat_domain=flat_domain)
    if corrections and not (labels_only := use_label_sets(table)).has_objects:
        raise needs_objects(labels_only, "--corrections")
    table = use_label_sets(merge_spellings(apply_corrections(table, corrections) if corrections else table))
    for choice in table.choices:
        log.info("%s", choice)
    return table


def load_available(data: str, data_root: Path | None, targets: Sequence[str], **options: Any) -> ImageTable:
    """Return the table of :func:`load_table` with those of `targets` that the data has; a note names the others.

    `options` are those of :func:`load_table`.
    """
    lacking: list[str] = []
    while True:
        try:
            table = load_table(data, data_root, targets, **options)
        except MissingColumn as error:
            found = [spec for spec in targets if not {spec, spec.partition(":")[0]} & {*error.names}]
            if len(found) == len(targets):
                raise
            lacking += [spec.partition(":")[0] for spec in targets if spec not in found]
            targets = found
        else:
            note = f"these images have no labels of {', '.join(lacking)}"
            return replace(table, notes=(*table.notes, note)) if lacking else table


def _read(
    data: str, data_root: Path | None, targets: Sequence[str], *, labels: str | None, skip_bad: bool, flat_domain: str
) -> ImageTable:
    if data == "digits":
        from transfer.data.sets.digits import build_digits  # drawing needs matplotlib and scikit-learn

        table = read_folder(build_digits(), targets, labels=labels)
        return replace(table, name=data, notes=(), left_out=())  # the note would only name its hidden marker file
    if data == "office31":
        return replace(read_folder(office31.find_office31(data_root), targets, labels=labels), name=data)
    root = data_root or os.environ.get("TRANSFER_DATA")
    if not Path(data).expanduser().exists() and root and (below := Path(root).expanduser() / data).exists():
        data = str(below)
    if shards := find_shards(data):
        if labels:
            raise TransferError(f"--labels: the shards of {data} have their labels themselves; leave it out")
        return read_shards(shards, targets, name=data)
    if not Path(data).expanduser().exists():
        raise TransferError(
            f"no data set or folder {data!r}{did_you_mean(Path(data).name, _near(Path(data).expanduser()))}: "
            f"give one of {', '.join(NAMED)}, a folder of images, a CSV manifest or tar shards"
        )
    return read_folder(Path(data), targets, labels=labels, skip_bad=skip_bad, flat_domain=flat_domain)


def _near(path: Path) -> list[str]:
    """Return the names that `path` could have meant: named sets, and folders, tables and tars beside it."""
    try:
        with os.scandir(path.parent) as entries:
            near = [
                entry
                for entry in islice(entries, 1000)
                if entry.is_dir() or entry.name.endswith((*CSV_SUFFIXES, ".tar"))
            ]
    except (OSError, ValueError):
        return [*NAMED]
    return [*NAMED, *(entry.name for entry in near)]


def is_available(name: str, data_root: Path | None = None) -> bool:
    """Return whether the named set is available without a download.

    Examples
    --------
    >>> is_available("digits")
    True
    """
    if name == "office31":
        return any(map(office31.has_domains, office31.list_locations(data_root)))
    return name in NAMED


def fetch_or_verify(name: str, data_root: Path | None = None, *, verify: bool = False) -> str:
    """Download (or generate) a named set, or verify the present copy; return one line on the outcome.

    Raises
    ------
    TransferError
        It cannot be had, or the copy is not whole: each file that differs is then printed.
    """
    if name == "digits":
        from transfer.data.sets.digits import build_digits

        folder = build_digits()
        return f"digits: {len(read_folder(folder)):,} images in {folder}"
    if not verify:
        places = office31.list_locations(data_root)
        there = [place for place in places if (place / office31.OFFICE31_DOMAINS[0]).is_dir()]
        folder = office31.fetch_office31((there or places)[0])
    else:
        folder = office31.find_office31(data_root)
        found = office31.verify_files(folder)
        for line in found.lines():
            print(escape_unprintable(line))
        if not found.ok:
            raise TransferError(f"{folder} differs from the published Office-31: {found}")
    return f"office31: all {len(office31.read_checksums()):,} files in {folder} are correct"
