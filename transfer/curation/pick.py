"""What to label next: `transfer pick`."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from transfer.config.curation import PickConfig
from transfer.curation.features import DataSetFeatures, load_data_set_features
from transfer.curation.picking.choose import PickingTask, choose_images
from transfer.curation.picking.picks_file import Cells, PicksFile, read_picks, write_picks
from transfer.curation.picking.pool import Choice
from transfer.curation.picking.registry import find_strategy
from transfer.data.class_names import merge_spellings
from transfer.data.duplicates import group_duplicates, group_near_duplicates, merge_groups
from transfer.data.images.depths import measure_depths
from transfer.data.images.levels import Levels, choose_levels
from transfer.data.shards.address import parse_address
from transfer.data.table import DEFAULT_DOMAIN, ImageTable, make_softmax_target
from transfer.data.unlabelled import forget_placeholder_classes
from transfer.errors import TransferError
from transfer.feature_cache import TrunkCache

HELD_OUT = ("val", "test")  # parts of a given split whose images are never picked


@dataclass(frozen=True)
class PickedImage:
    """An image to label next.

    Parameters
    ----------
    path : str
        Absolute.
    domain : str
        Empty if the set names none.
    score : float
        How much the strategy wants it; comparable within one run of one strategy.
    reason : str
        Why, in a few words.
    suggested : str
        The class that is most likely by the labels so far; empty with fewer than two labelled classes.
    probability : float or None
        Of this class.
    """

    path: str
    domain: str
    score: float
    reason: str
    suggested: str = ""
    probability: float | None = None


@dataclass(frozen=True)
class PickResult:
    """The images to label next, in order, and the set that they are of.

    `labelled` and `unlabelled` count the images of the set without its validation and test images; `waiting` are those
    picked earlier that have no label yet. `levels` are those of deep images.
    """

    images: tuple[PickedImage, ...]
    strategy: str
    labelled: int
    unlabelled: int
    waiting: int
    classes: tuple[str, ...]
    notes: tuple[str, ...]
    out: Path | None = None
    levels: Levels = ()


def pick(config: PickConfig) -> PickResult:
    """Choose the images to label next; with ``config.out`` list them in a CSV file.

    Labels that were filled in in this file count; they, and columns that were added, stay in it. Images of a validation
    or test part of a given split are never picked, nor their near-duplicates.

    Raises
    ------
    TransferError
        The images or the file cannot be read, or there are fewer than ``config.n`` images to choose from.
    """
    find_strategy(config.strategy)  # before any image is read
    before = _read_earlier_picks(config)
    cache = TrunkCache(config.cache)
    data = load_data_set_features(config.images, config.backbone, cache, device=config.device, seed=config.seed)
    if config.out and any(map(parse_address, data.table.paths.tolist())):
        raise TransferError(f"{config.images.data}: a CSV file cannot list images inside tar shards: unpack these")
    normal = replace(data.table, paths=np.array([os.path.normpath(path) for path in data.table.paths.tolist()]))
    table = merge_labels(forget_placeholder_classes(normal), before.labels)
    task, rows = make_task(replace(data, table=table), before.waiting)
    chosen, probabilities = choose_images(task, config.n, config.strategy, config.seed), task.predict()
    images = tuple(_describe(table, int(rows[each.row]), each, probabilities) for each in chosen)
    if config.out:
        write_picks(config.out, list_rows(table, images, before, only_new=config.only_new))
    known = task.labels >= 0
    return PickResult(
        images,
        config.strategy,
        int(known.sum()),
        int((~known).sum()),
        len(before.waiting),
        table.objects,
        (*(note for note in table.notes if note not in data.table.choices), *_name_others(config, table, before)),
        config.out,
        choose_levels(measure_depths(data.table.paths, data.inspection.sha256, cache.disk_cache)),
    )


def _read_earlier_picks(config: PickConfig) -> PicksFile:
    if not config.out or config.overwrite:
        return PicksFile()
    data = Path(config.images.data).expanduser()
    if config.out.exists() and data.exists() and config.out.samefile(data):
        raise TransferError(f"--out {config.out} is the data set itself: name another file")
    return read_picks(config.out)


def _name_others(config: PickConfig, table: ImageTable, before: PicksFile) -> list[str]:
    others = before.rows.keys() - set(table.paths.tolist())
    count = f"{len(others)} row{'s' * (len(others) > 1)}"
    return [f"{count} of {config.out} not in {config.images.data}: left in the file, not counted"] if others else []


def merge_labels(table: ImageTable, labels: Mapping[str, str]) -> ImageTable:
    """Return `table` with `labels`, by path, in place of its own; spellings of one class are merged."""
    objects = ["" if i < 0 else table.objects[i] for i in table.object]
    given = [labels.get(path, name) for path, name in zip(table.paths.tolist(), objects, strict=True)]
    return merge_spellings(replace(table, targets=table.targets | {"object": make_softmax_target(given)}))


def make_task(data: DataSetFeatures, waiting: Sequence[str] = ()) -> tuple[PickingTask, np.ndarray]:
    """Return what strategies choose from, and the rows of the set that it has: those that are not held out.

    `waiting` are the paths of images without a label that are not to be chosen either, nor their near-duplicates.
    """
    table = data.table
    groups = merge_groups([group_duplicates(data.inspection), group_near_duplicates(data.inspection)])
    held_out = np.isin(table.split, HELD_OUT)
    closed = np.isin(table.paths, list(waiting)) | np.isin(groups, groups[held_out])
    rows = np.flatnonzero(~held_out)
    labels = table.object[rows]
    return PickingTask(
        data.features[rows], labels, table.objects, groups[rows], table.domain[rows], closed[rows] & (labels < 0)
    ), rows


def _describe(table: ImageTable, row: int, choice: Choice, probabilities: np.ndarray | None) -> PickedImage:
    domain = table.domain[row]
    several = table.domains != (DEFAULT_DOMAIN,)
    path, name = str(table.paths[row]), table.domains[domain] if several and domain >= 0 else ""
    if probabilities is None:
        return PickedImage(path, name, choice.score, choice.reason)
    p = probabilities[choice.row]
    return PickedImage(path, name, choice.score, choice.reason, table.objects[p.argmax()], float(p.max()))


def list_rows(
    table: ImageTable, images: Sequence[PickedImage], before: PicksFile, *, only_new: bool = False
) -> dict[str, Cells]:
    """Return the rows of the CSV file by path: new images, those that wait for a label, and those with labels.

    With `only_new` labelled images of `table` are left out, unless they are in the file already.
    """
    place = {path: row for row, path in enumerate(table.paths.tolist())}
    several = table.domains != (DEFAULT_DOMAIN,)

    def list_cells(row: int) -> Cells:
        label, domain = table.object[row], table.domain[row]
        return {
            "object": table.objects[label] if label >= 0 else "",
            "domain": table.domains[domain] if several and domain >= 0 else "",
            "split": str(table.split[row]),
            "group": str(table.group[row]),
        }

    rows = {
        each.path: list_cells(place[each.path])
        | {"suggested": each.suggested, "score": f"{each.score:.4g}", "reason": each.reason}
        for each in images
    }
    rows |= {path: before.rows[path] for path in before.waiting}
    rows |= {path: before.rows[path] for path in before.labels}
    if not only_new:
        labelled = np.flatnonzero(table.object >= 0)
        rows |= {path: list_cells(int(row)) for row in labelled if (path := str(table.paths[row])) not in rows}
    return rows
