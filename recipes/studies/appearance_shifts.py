"""Pairs of domains that differ in appearance: photographs, and transformed photographs of the same classes.

The images of each data set are divided into two halves, so that source and target never show the same photograph. In a
pair, one half is as photographed and the other is transformed. Class shares are equal, or some classes of the target
are thinned out. Transformed images are written to a folder, so that their features are cached like any image's.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageFilter, ImageOps

from transfer.data.duplicates import inspect_files
from transfer.data.sets.load import load_table
from transfer.disk_cache import DiskCache
from transfer.runtime.files import atomic_write
from transfer.training.setup import Images

SIZE = 224  # pixels of each side at which images are transformed
JPEG_QUALITY = 90
CLASSES, PER_CLASS = 16, 24  # of a data set, and images of each in each half, at most
PHOTOGRAPHED = {"office31": "amazon", "digits": "printed"}  # the domain taken of a set with several
THINNED, SHARE = 0.5, 1 / 3  # fraction of the target's classes of which only this share of the images is left
# Rules are set on these data sets and transforms. All other pairs only report.
DEVELOPMENT = (("office31", "flowers12"), ("edges", "inverted", "noise", "pixelated"))

Random = np.random.Generator


def _edges(image: Image.Image, _: Random) -> Image.Image:
    lines = image.convert("L").filter(ImageFilter.GaussianBlur(1)).filter(ImageFilter.FIND_EDGES)
    return ImageOps.invert(ImageOps.autocontrast(ImageOps.crop(lines, 2), cutoff=1))


def _sketch(image: Image.Image, _: Random) -> Image.Image:
    """Divide brightness by that of the surroundings, as a soft pencil would (colour dodge)."""
    grey = image.convert("L")
    around = np.asarray(grey.filter(ImageFilter.GaussianBlur(8)), float)
    ratio = np.asarray(grey, float) / np.maximum(around, 1)
    return Image.fromarray((255 * np.clip(ratio, 0, 1) ** 2).astype(np.uint8))


def _pixelated(image: Image.Image, _: Random) -> Image.Image:
    small = image.resize((20, 20), Image.Resampling.BOX)
    return small.resize(image.size, Image.Resampling.NEAREST)


def _noise(image: Image.Image, random: Random) -> Image.Image:
    pixels = np.asarray(image, float)
    return Image.fromarray((pixels + random.normal(0, 70, pixels.shape)).clip(0, 255).astype(np.uint8))


TRANSFORMS: dict[str, Callable[[Image.Image, Random], Image.Image]] = {
    "edges": _edges,
    "sketch": _sketch,
    "inverted": lambda image, _: ImageChops.invert(image),
    "posterised": lambda image, _: ImageOps.posterize(image, 1),
    "pixelated": _pixelated,
    "noise": _noise,
    "blur": lambda image, _: image.filter(ImageFilter.GaussianBlur(7)),
}


@dataclass(frozen=True)
class AppearancePair:
    """A source and a target, of which one is photographed and the other transformed."""

    data: str  # name of the data set
    transform: str
    to_photograph: bool  # whether the transformed images are the source
    thinned: bool  # whether the target's class shares differ from the source's

    @property
    def domains(self) -> tuple[str, str]:
        """Names of source and target."""
        looks = ("photo", self.transform)
        source, target = looks[::-1] if self.to_photograph else looks
        return f"{source}-first", f"{target}-second"

    @property
    def name(self) -> str:
        """The pair in words."""
        source, target = (domain.partition("-")[0] for domain in self.domains)
        return f"{self.data}, {source} -> {target}{', thinned' * self.thinned}"

    @property
    def development(self) -> bool:
        """Whether rules may be set on this pair."""
        sets, transforms = DEVELOPMENT
        return self.data in sets and self.transform in transforms


def list_pairs(data_sets: Sequence[str]) -> list[AppearancePair]:
    """Return both directions of every transform with equal class shares, and one of them also with thinned classes."""
    pairs = []
    for i, data in enumerate(data_sets):
        for j, transform in enumerate(TRANSFORMS):
            pairs += [AppearancePair(data, transform, to_photograph, False) for to_photograph in (False, True)]
            pairs.append(AppearancePair(data, transform, (i + j) % 2 == 1, True))
    return pairs


def write_looks(data: str, data_root: Path | None, folder: Path) -> Path:
    """Write both halves of a data set, photographed and transformed, to ``folder/data/look-half/class/``.

    Files that are there already stay. The same images give the same files.
    """
    table = load_table(data, data_root)
    chosen = table.domains.index(PHOTOGRAPHED.get(data, table.domains[0]))
    classes = [k for k in range(len(table.objects)) if ((table.object == k) & (table.domain == chosen)).any()]
    for k in classes[:CLASSES]:
        rows = np.flatnonzero((table.object == k) & (table.domain == chosen))
        rows = np.random.default_rng(k).permutation(rows)[: 2 * PER_CLASS]
        for place, row in enumerate(rows):
            half = ("first", "second")[place % 2]
            where = Path(table.objects[k], f"{place:02d}.jpg")
            photograph = folder / data / f"photo-{half}" / where
            todo = {name: folder / data / f"{name}-{half}" / where for name in TRANSFORMS}
            if all(path.exists() for path in (photograph, *todo.values())):
                continue
            with Image.open(table.paths[row]) as opened:
                image = ImageOps.fit(opened.convert("RGB"), (SIZE, SIZE), Image.Resampling.BICUBIC)
            _save(image, photograph)
            for number, (name, path) in enumerate(todo.items()):
                _save(TRANSFORMS[name](image, np.random.default_rng([k, place, number])), path)
    return folder / data


def _save(image: Image.Image, path: Path) -> None:
    with atomic_write(path) as temporary:
        image.convert("RGB").save(temporary, format="JPEG", quality=JPEG_QUALITY)


def read_looks(folder: Path, disk_cache: DiskCache | None) -> Images:
    """Return the images that :func:`write_looks` wrote to `folder`, inspected."""
    table = load_table(str(folder))
    return Images(table, inspect_files(table, disk_cache=disk_cache))


def images_of_pair(images: Images, pair: AppearancePair) -> Images:
    """Return the images of the two domains of `pair`; of some classes of a thinned target only a share."""
    table = images.table
    source, target = (np.flatnonzero(table.domain == table.domains.index(name)) for name in pair.domains)
    if pair.thinned:
        random = np.random.default_rng(0)
        few = random.permutation(np.unique(table.object[target]))
        for k in few[: round(THINNED * len(few))]:
            of_class = target[table.object[target] == k]
            target = np.setdiff1d(target, of_class[max(1, round(SHARE * len(of_class))) :])
    rows = np.concatenate([source, target])
    return replace(images, table=table.take(rows), inspection=images.inspection.take(rows))
