"""What the folders above the images mean: splits, domains and classes, and which images lie outside of these."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from transfer.data.images.file_kinds import describe_left_out
from transfer.data.left_out import LeftOut
from transfer.data.split_names import describe_splits, read_splits
from transfer.data.table import DEFAULT_DOMAIN, ImageTable, make_softmax_target
from transfer.errors import TransferError

LAYOUTS = "class/…, domain/class/… or a CSV manifest"
OUTSIDE = "not in a class folder"
OTHER_LEVEL = "on another level than the class folders"
NO_CLASSES = "in a folder of a split without class folders"

FoundImages = list[tuple[tuple[str, ...], str]]  # folder names from the root down, and file name
_Levels = list[tuple[str, ...]]


@dataclass(frozen=True)
class _Splits:
    """The split of each image, ``""`` if none; its levels without that, none if outside; how the folders were read."""

    split: list[str]
    levels: _Levels
    choices: tuple[str, ...] = ()


def arrange_images(
    images: FoundImages,
    paths: Sequence[str],
    *,
    source: str,
    name: str,
    sha256: np.ndarray | None = None,
    flat_domain: str = "",
) -> ImageTable:
    """Return the table of at least one of `images`, whose folders name domain, class and split.

    A split may be named on any level, and all may lie in one folder more. Images outside the class folders are left
    out and named, if they are fewer than the others.

    Parameters
    ----------
    images : sequence
        Folder names from the root down and file name of each.
    paths : sequence of str
        Paths or addresses of `images`.
    source : str
        The root, for error messages.
    name : str
        Name of the table.
    sha256 : ndarray of str, shape (N,), optional
        Of each image's bytes.
    flat_domain : str
        A domain whose folder may hold its images directly, beside ``domain/class/…``; their classes are unknown.
        `DEFAULT_DOMAIN`: the root may hold all images directly.

    Raises
    ------
    TransferError
        An ambiguous layout.
    """
    shown = ["/".join((*where, file)) for where, file in images]
    wrapper, levels = _unwrap([where for where, _ in images])
    read = _take_splits(source, levels)
    levels = _drop_images_level(read.levels)
    flat = _is_flat(levels, flat_domain)
    levels = [(*level, "") if flat and level == (flat_domain,) else level for level in levels]
    rows, left_out = _leave_out_strays(source, levels, read.split, shown)
    depth = len(levels[rows[0]])
    if depth == 0 and flat_domain != DEFAULT_DOMAIN:
        raise TransferError(
            f"{source} holds images outside any class folder ({shown[rows[0]]!r}): "
            "expected class/…, domain/class/…, or a CSV manifest that names each image's object"
        )
    if depth > 2:
        raise TransferError(
            f"{source} holds images {depth} levels deep ({shown[rows[0]]!r}): expected class/…, domain/class/… or "
            "domain/images/class/…, or a CSV manifest"
        )
    choices = [f"the folder {wrapper}, which holds all others, is neither domain nor class"] if wrapper else []
    choices += read.choices
    unknown = f"the images of {flat_domain} lie" if flat else "the images lie" if depth == 0 else ""
    choices += [f"{unknown} in no class folder: their labels are unknown"] if unknown else []
    return ImageTable(
        paths=np.array([paths[row] for row in rows]),
        targets={
            "object": make_softmax_target([levels[row][-1] if depth else "" for row in rows]),
            "domain": make_softmax_target([levels[row][0] if depth == 2 else DEFAULT_DOMAIN for row in rows]),
        },
        split=np.array([read.split[row] for row in rows]),
        group=np.full(len(rows), ""),
        name=name,
        notes=(*choices, *(f"left out: {line}" for line in describe_left_out(left_out))),
        choices=tuple(choices),
        sha256=None if sha256 is None else sha256[rows],
        left_out=tuple(left_out),
    )


def _unwrap(levels: _Levels) -> tuple[str, _Levels]:
    """Return the folders that hold all others, such as ``set`` of ``set/train/class``, and the levels below these."""
    wrapper: list[str] = []
    while True:
        kinds = {level for level in levels if level}
        tops = {level[0] for level in kinds}
        second = read_splits({level[1] for level in kinds if len(level) > 1})
        splits = bool(second) and all(second.values())
        if len(tops) != 1 or any(read_splits(tops).values()) or not (splits or max(map(_count_names, kinds)) > 2):
            return "/".join(wrapper), levels
        wrapper += tops
        levels = [level[1:] for level in levels]


def _count_names(level: tuple[str, ...]) -> int:
    """Return the number of levels that name neither a split nor, right above the class, ``images``."""
    names = [name for name, split in read_splits(level).items() if not split]
    return len(names) - (len(names) > 2 and names[-2].lower() == "images")


def _take_splits(source: str, levels: _Levels) -> _Splits:
    """Find the level whose folders are splits, if any.

    Raises
    ------
    TransferError
        Splits beside other folders of the same depth. A single class may be called ``train``.
    """
    kinds, choices = Counter(levels), []
    for i in range(max(map(len, kinds))):
        meanings = read_splits(sorted({level[i] for level in kinds if len(level) > i}))
        named = [name for name, split in meanings.items() if split]
        inside = {level for level in kinds if len(level) > i and level[i] in named}
        if not inside:
            continue
        beside = kinds.keys() - inside
        depth = max(map(len, inside))
        equal = any(len(level) >= depth for level in beside)
        if not equal and sum(kinds[level] for level in beside) < sum(kinds[level] for level in inside):
            how = describe_splits(meanings) or (", ".join(named) if i else "")
            choices += [f"splits by the folders on level {i + 1}: {how}"] if how else []
            return _Splits(
                [meanings[level[i]] if level in inside else "" for level in levels],
                [level[:i] + level[i + 1 :] if level in inside else () for level in levels],
                tuple(choices),
            )
        if (equal or i == 0) and (depth > i + 1 or len({meanings[name] for name in named}) > 1):
            others = ", ".join(sorted(meanings.keys() - set(named))[:3]) or "images"
            raise TransferError(
                f"{source} holds splits ({', '.join(named)}) beside {others}: "
                "put every image under train, val or test, or rename the folders that are no splits"
            )
        if equal and any(len(level) == depth for level in beside):
            choices.append(f"the folder {named[0]} is read as a class beside others, not as a split")
    return _Splits([""] * len(levels), levels, tuple(choices))


def _drop_images_level(levels: _Levels) -> _Levels:
    """Drop an uninformative level named ``images`` above the classes."""
    if max(map(len, levels)) == 2 and all(level[0].lower() == "images" for level in levels if level):
        return [level[1:] for level in levels]
    return [(level[0], level[2]) if len(level) == 3 and level[1].lower() == "images" else level for level in levels]


def _is_flat(levels: _Levels, domain: str) -> bool:
    """Return whether all images of `domain` lie directly in its folder, and most others in ``domain/class/…``."""
    inside = {level for level in levels if level[:1] == (domain,)}
    beside = Counter(len(level) for level in levels if level[:1] != (domain,))
    return inside == {(domain,)} and beside[2] > beside.total() / 2


def _leave_out_strays(
    source: str, levels: _Levels, split: Sequence[str], shown: Sequence[str]
) -> tuple[list[int], list[LeftOut]]:
    """Return the rows of one depth, that of most images, and the others with the reason why they are left out.

    Raises
    ------
    TransferError
        There are as many others, so that either depth could be meant; or train has no class folders.
    """
    depths = Counter(len(level) for level in levels)
    depth = max(depths, key=lambda depth: (depth > 0, depths[depth]))
    rows = [row for row, level in enumerate(levels) if len(level) == depth]
    with_classes = {split[row] for row in rows}
    left_out, unsure = [], 0
    for row, level in enumerate(levels):
        if len(level) == depth:
            continue
        flat = not level and split[row] and split[row] not in with_classes
        unsure += not flat or split[row] == "train"
        left_out.append(LeftOut(shown[row], NO_CLASSES if flat else OTHER_LEVEL if level else OUTSIDE))
    lacks_train = any(with_classes) and "train" not in with_classes and "train" in split
    if unsure >= len(rows) or lacks_train:
        first = {len(level): row for row, level in reversed(list(enumerate(levels)))}
        examples = " and ".join(repr(shown[row]) for _, row in sorted(first.items()))
        raise TransferError(
            f"{source} holds images at mixed depths ({examples}): "
            "expected class/… throughout, or domain/class/… throughout "
            "(transfer adapt takes a folder of images without labels by --target-images)"
        )
    return rows, left_out
