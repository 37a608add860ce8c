"""The images of an update: those of the saved run, as they were then, and new ones with the run's spelling of names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from transfer.config.commands import UpdateConfig
from transfer.data.class_names import match_names
from transfer.data.corrections import CORRECTED_IMAGES, CORRECTION_HEADERS, Correction, CorrectionFile, settle
from transfer.data.duplicates import Inspection, drop_bad_images, inspect_files
from transfer.data.label_sets.cells import list_labels, spell_label_set
from transfer.data.manifests.csv_columns import read_header
from transfer.data.sets.load import load_table
from transfer.data.shards.address import parse_address
from transfer.data.splits import Splits
from transfer.data.table import DEFAULT_DOMAIN, ImageTable, make_softmax_target
from transfer.disk_cache import DiskCache
from transfer.errors import TransferError, list_examples
from transfer.heads import HeadSpec
from transfer.runs.image_list import DIGEST, ListedImage, list_images, read_image_list


@dataclass
class Source:
    """Images as lines of images.csv, with their perceptual hashes, uint64 (N,), and notes on them."""

    images: list[ListedImage]
    hashes: np.ndarray
    notes: tuple[str, ...] = ()

    def without(self, digests: frozenset[str]) -> "Source":
        """Return the images whose sha256 is none of `digests`, with a note on the number of others."""
        left = [place for place, image in enumerate(self.images) if image[DIGEST] not in digests]
        if len(left) == len(self.images):
            return self
        count = len(self.images) - len(left)
        note = f"{count:,} image{'s' * (count != 1)} excluded by --corrections"
        return Source([self.images[place] for place in left], self.hashes[left], (*self.notes, note))


def read_old_images(config: UpdateConfig, disk_cache: DiskCache | None) -> Source:
    """Return the images of the run, with a note on those that are skipped.

    Raises
    ------
    TransferError
        They lie in tar shards, or some are missing or have changed (and are not skipped).
    """
    images = read_image_list(config.run)
    if any(parse_address(image["path"]) for image in images):
        raise TransferError(f"{config.run} was trained on tar shards, which update does not read: unpack them")
    paths, digests = (np.array([image[key] for image in images]) for key in ("path", DIGEST))
    found = _inspect(paths.tolist(), disk_cache)
    same = (found.sha256 == digests) & ~found.bad
    if same.all():
        return Source(images, found.phash)
    lost = f"{(~same).sum():,} of {len(images):,} images of {config.run} are missing or have changed"
    lost += f" ({list_examples(paths[~same].tolist(), 3)})"
    if config.on_bad_image == "refuse" or not same.any():
        raise TransferError(f"{lost}: restore them, or leave them out with --on-bad-image skip")
    left = [image for image, is_same in zip(images, same.tolist(), strict=True) if is_same]
    return Source(left, found.phash[same], (f"{lost} and are left out",))


def read_new_images(
    config: UpdateConfig, data: str, old: Source, specs: Sequence[HeadSpec], disk_cache: DiskCache | None
) -> Source:
    """Return the images that `data` names, with names as the run spells them.

    Images that name no domain are of ``--domain``, or of the run's only one; else their domain is unknown.

    Raises
    ------
    TransferError
        There are none, they lie in tar shards, or are bad (and are not skipped).
    """
    table, notes = _load(config, data, specs)
    if any(parse_address(path) for path in table.paths.tolist()):
        raise TransferError(f"{data}: update does not read tar shards: unpack them")
    table, inspection = drop_bad_images(table, inspect_files(table, disk_cache=disk_cache), config.on_bad_image)
    images = _list_all(table, inspection)
    if table.domains == (DEFAULT_DOMAIN,):
        given = _domain_of_others(config, old)
        images = [image | {"domain": given} for image in images]
    if not _has_objects(specs) and _names(images, "object"):
        images = [image | {"object": ""} for image in images]
        notes.append(f"{data} names an object of each image, which {config.run} does not predict: not used")
    for name, target in table.targets.items():
        if target.values.ndim == 2:
            notes += _spell_labels_as_before(images, name, list_labels(image.get(name, "") for image in old.images))
        elif target.classes or name == "domain":
            notes += _spell_as_before(images, name, _names(old.images, name))
    return Source(images, inspection.phash, (*table.notes, *notes))


def read_corrections(
    config: UpdateConfig, file: Path, old: Source, specs: Sequence[HeadSpec], disk_cache: DiskCache | None
) -> tuple[Source, frozenset[str]]:
    """Return the images of a CSV manifest, or of the decisions of a review, and the sha256 of those it excludes.

    Decisions are found by their sha256; of images that the run lacks, the file must be where it was, and as it was. New
    ones of which no domain is stated are of that of :func:`read_new_images`.

    Raises
    ------
    TransferError
        There is no such file, or it is damaged, or has decisions on objects and the run predicts none; see also
        :func:`read_new_images`.
    """
    if not file.is_file():
        raise TransferError(f"--corrections: no file {file}: give a CSV file with columns path,object[,domain]")
    if read_header(file) not in CORRECTION_HEADERS:
        return read_new_images(config, str(file), old, specs, disk_cache), frozenset()
    if not _has_objects(specs):
        columns = ",".join(spec.name for spec in further_heads(specs))
        raise TransferError(
            f"--corrections: {file} has decisions on the object of each image, and {config.run} predicts none: give a "
            f"CSV file with columns path,{columns}"
        )
    decided = [_find_moved(each, file.parent) for each in settle(CorrectionFile(file).read()).values()]
    excluded = frozenset(each.sha256 for each in decided if each.action == "exclude")
    labelled = [each for each in decided if each.action != "exclude"]
    known = {image[DIGEST] for image in old.images}
    new = [each.path for each in labelled if each.sha256 not in known]
    found = _inspect(new, disk_cache)
    hashes = dict(zip(zip(new, found.sha256.tolist(), strict=True), found.phash, strict=True))
    usable = [each for each in labelled if each.sha256 in known or (each.path, each.sha256) in hashes]
    given = _domain_of_others(config, old)
    images = [
        {"path": each.path, "split": "", DIGEST: each.sha256, "object": each.new}
        | {"domain": each.domain or ("" if each.sha256 in known else given)}
        for each in usable
    ]
    notes = [note for name in ("object", "domain") for note in _spell_as_before(images, name, _names(old.images, name))]
    lost = [each.path for each in labelled if each not in usable]
    what = f"{len(lost)} correction{'s' * (len(lost) != 1)} not applied, the image is gone or has changed"
    notes += [f"{what}: {list_examples(lost, 3)}"] if lost else []
    phashes = [hashes.get((each.path, each.sha256), np.uint64(0)) for each in usable]
    return Source(images, np.array(phashes, np.uint64), tuple(notes)), excluded


def _find_moved(correction: Correction, folder: Path) -> Correction:
    """Return a correction with the path that its image has now, if it was moved together with the file in `folder`."""
    beside = folder / CORRECTED_IMAGES / Path(correction.path).name
    moved = not Path(correction.path).exists() and beside.is_file()
    return replace(correction, path=str(beside.absolute())) if moved else correction


def _inspect(paths: Sequence[str], disk_cache: DiskCache | None) -> Inspection:
    blank = np.full(len(paths), "")
    unknown = make_softmax_target(blank.tolist())
    table = ImageTable(np.array(paths, dtype=str), {"object": unknown, "domain": unknown}, blank, blank)
    return inspect_files(table, disk_cache=disk_cache)


def further_heads(specs: Sequence[HeadSpec]) -> list[HeadSpec]:
    """Return the heads besides object and domain."""
    return [spec for spec in specs if spec.name not in ("object", "domain")]


def _domain_of_others(config: UpdateConfig, old: Source) -> str:
    """Return the domain of new images that name none: the given one, or the run's only one; "" if unknown."""
    domains = _names(old.images, "domain")
    return config.domain or (domains[0] if len(domains) == 1 else "")


def _has_objects(specs: Sequence[HeadSpec]) -> bool:
    return any(spec.name == "object" for spec in specs)


def _load(config: UpdateConfig, data: str, specs: Sequence[HeadSpec]) -> tuple[ImageTable, list[str]]:
    targets = [f"{spec.name}:{spec.kind}" for spec in further_heads(specs)]
    skip_bad, labels = config.on_bad_image == "skip", config.labels if data == config.add else None
    try:
        return load_table(data, config.data_root, targets, labels=labels, skip_bad=skip_bad), []
    except TransferError:
        if not targets or not _has_objects(specs):
            raise
    table = load_table(data, config.data_root, labels=labels, skip_bad=skip_bad)
    return table, [f"{data} does not name {', '.join(targets)}: unknown for its images"]


def _list_all(table: ImageTable, inspection: Inspection) -> list[ListedImage]:
    none = np.array([], np.int64)
    images = list_images(table, Splits(np.arange(len(table)), none, none), inspection.sha256)
    return [image | {"split": part} for image, part in zip(images, table.split.tolist(), strict=True)]


def _names(images: Sequence[ListedImage], column: str) -> list[str]:
    return [name for name in dict.fromkeys(image.get(column, "") for image in images) if name]


def _spell_as_before(images: list[ListedImage], column: str, known: Sequence[str]) -> list[str]:
    """Write names in `column` as the run does, in place; return a note on those that change."""
    spelled = _find_spellings(_names(images, column), known)
    for image in images:
        image[column] = spelled.get(image[column], image[column])
    return _note_spellings(column, spelled)


def _spell_labels_as_before(images: list[ListedImage], column: str, known: Sequence[str]) -> list[str]:
    """Write labels in `column`, several an image, as the run does, in place; return a note on those that change."""
    spelled = _find_spellings(list_labels(image[column] for image in images), known)
    for image in images:
        image[column] = spell_label_set(image[column], spelled)
    return _note_spellings(column, spelled)


def _find_spellings(given: Sequence[str], known: Sequence[str]) -> dict[str, str]:
    """Return the spelling in `known` of each of `given` that is there."""
    return {name: known[place] for name, place in zip(given, match_names(given, known), strict=True) if place >= 0}


def _note_spellings(column: str, spelled: Mapping[str, str]) -> list[str]:
    changed = [f"{name!r} is read as {other!r}" for name, other in spelled.items() if name != other]
    return [f"{column}: {list_examples(changed)}"] if changed else []
