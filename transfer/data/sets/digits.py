"""The embedded set: ten digits in three domains, generated from scikit-learn's scans and matplotlib's fonts.

- ``scanned``: one half of scikit-learn's 1,797 handwritten digits (8 x 8 pixels), enlarged, dark ink on pale paper;
- ``blended``: the other half, blended over patches of its sample photographs, as MNIST-M was made;
- ``printed``: set in fonts that matplotlib bundles, in many poses, sizes and colours.
"""

import functools
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import numpy as np
import PIL
from PIL import Image
from tqdm.auto import tqdm

from transfer.data.sets import glyphs
from transfer.data.sets.glyphs import PRINTED, SIZE, Pose
from transfer.errors import TransferError
from transfer.runtime.files import get_cache_folder

DIGIT_DOMAINS = ("blended", "printed", "scanned")
PRINTED_PER_CLASS = 90
_MARK = ".made-from.json"  # hidden, so that folder readers ignore it


def build_digits(folder: Path | None = None, seed: int = 0) -> Path:
    """Return the folder of the set, ``domain/class/NNNN.png``, generated first if it is missing or damaged.

    The same versions of numpy, Pillow, scikit-learn and matplotlib and the same seed give the same bytes.

    Parameters
    ----------
    folder : Path, optional
        Where to put it (default: in the cache, under a name for all that it is made from).
    seed : int
        Which scan goes to which domain, and every pose, colour and patch.

    Raises
    ------
    TransferError
        The folder holds something else, or cannot be written.
    """
    made_from = _made_from(seed)
    ours = folder is None
    if folder is None:
        name = hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()[:16]
        folder = get_cache_folder("digits", name)
    folder = Path(folder).expanduser().absolute()
    if _complete(folder, made_from):
        return folder
    ours = ours or (folder / _MARK).is_file()
    if not ours and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise TransferError(f"{folder} holds other files: give an empty or a new folder")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as scratch:
            fresh = Path(scratch, "fresh")
            _write(fresh, made_from, seed)
            _put(fresh, folder, Path(scratch, "old"), made_from)
    except OSError as error:
        raise TransferError(f"cannot write the digits to {folder}: {error.strerror or error}") from error
    return folder


def draw_digits(seed: int = 0) -> Iterator[tuple[str, str, Image.Image]]:
    """Yield domain, class and RGB image of SIZE x SIZE pixels, in a fixed order for a seed."""
    from sklearn.datasets import load_digits

    scans = load_digits()
    deal = np.random.default_rng(seed)
    faces = [face for family in PRINTED.values() for face in family]
    for label in range(10):
        rows = deal.permutation(np.flatnonzero(scans.target == label))
        for domain in DIGIT_DOMAINS:
            # One random stream per cell, so that a change to one cell leaves the others unchanged.
            rng = np.random.default_rng((seed, label, DIGIT_DOMAINS.index(domain)))
            if domain == "printed":
                for number in range(PRINTED_PER_CLASS):
                    yield domain, str(label), _printed(faces[number % len(faces)], str(label), rng)
            else:
                recipe = _scanned if domain == "scanned" else _blended
                for row in rows[DIGIT_DOMAINS.index(domain) // 2 :: 2]:
                    yield domain, str(label), recipe(scans.images[row], rng)


def _enlarged(scan: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return an 8 x 8 scan of values 0 to 16 as smooth strokes, float32, shape (SIZE, SIZE), 1 is ink."""
    side = SIZE - 8
    small = Image.fromarray(np.uint8(scan * (255 / 16)))
    large = np.asarray(small.resize((side, side), Image.Resampling.BICUBIC), np.float32) / 255
    page = np.zeros((SIZE, SIZE), np.float32)
    top, left = rng.integers(2, 7, 2)
    page[top : top + side, left : left + side] = large
    return glyphs.restroked(page, radius=0.8, level=0.45, sharpness=2.0)


def _scanned(scan: np.ndarray, rng: np.random.Generator) -> Image.Image:
    paper = np.float32(rng.uniform(0.8, 0.97)) + rng.uniform(-0.04, 0.04, 3).astype(np.float32)
    ink = np.float32(rng.uniform(0.05, 0.35)) + rng.uniform(-0.05, 0.15, 3).astype(np.float32)
    lit = glyphs.gradient(paper, paper * np.float32(rng.uniform(0.8, 1.0)), rng)
    return glyphs.picture(glyphs.inked(lit, _enlarged(scan, rng), ink), 0.02, rng)


def _blended(scan: np.ndarray, rng: np.random.Generator) -> Image.Image:
    return glyphs.picture(glyphs.blended(glyphs.photo_patch(rng, "right"), _enlarged(scan, rng)), 0, rng)


def _printed(face: str, character: str, rng: np.random.Generator) -> Image.Image:
    shape = glyphs.posed(glyphs.template(face, character), Pose((0.45, 0.85), 25, 0.25, 0.25, 0.1), rng)
    ink, paper = glyphs.two_colours(rng, 0.25)
    return glyphs.picture(glyphs.inked(np.broadcast_to(paper, (SIZE, SIZE, 3)), shape, ink), 0.03, rng)


@functools.cache
def _made_from(seed: int) -> dict[str, str | int]:
    """Return everything that the bytes depend on."""
    recipe = b"".join(Path(f).read_bytes() for f in (glyphs.__file__, __file__))
    return {
        "recipe": hashlib.sha256(recipe).hexdigest(),
        "seed": seed,
        "numpy": np.__version__,
        "pillow": PIL.__version__,
        "scikit-learn": metadata.version("scikit-learn"),
        "matplotlib": metadata.version("matplotlib"),
    }


def _write(folder: Path, made_from: dict[str, str | int], seed: int) -> None:
    numbers: dict[Path, int] = {}
    drawn = tqdm(draw_digits(seed), "making the digits", 1797 + 10 * PRINTED_PER_CLASS, leave=False, disable=None)
    for domain, label, image in drawn:
        where = folder / domain / label
        where.mkdir(parents=True, exist_ok=True)
        number = numbers[where] = numbers.get(where, -1) + 1
        image.save(where / f"{number:04d}.png")
    mark = {"made_from": made_from, "files": _measure(folder)}
    (folder / _MARK).write_text(json.dumps(mark, indent=2), encoding="utf-8")


def _put(fresh: Path, folder: Path, old: Path, made_from: dict[str, str | int]) -> None:
    """Replace `folder` by `fresh`, unless another process has just completed it."""
    for attempt in range(10):
        if _complete(folder, made_from):
            return
        try:
            if folder.exists():
                folder.rename(old)
                shutil.rmtree(old, ignore_errors=True)
            fresh.rename(folder)
        except OSError:  # another process was faster: check again
            if attempt == 9:
                raise


def _complete(folder: Path, made_from: dict[str, str | int]) -> bool:
    """Return whether the folder was made from the same inputs and holds the recorded number of files and bytes."""
    try:
        mark = json.loads((folder / _MARK).read_text(encoding="utf-8"))
        return mark == {"made_from": made_from, "files": _measure(folder)}
    except (OSError, ValueError):
        return False


def _measure(folder: Path) -> list[int]:
    """Return the number of PNG files and their total bytes, without reading them."""
    sizes = [os.path.getsize(path) for path in folder.glob("*/*/*.png")]
    return [len(sizes), sum(sizes)]
