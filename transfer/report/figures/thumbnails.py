"""Small pictures of images as data URIs, decoded in parallel, and never more than a page can hold."""

import base64
import contextlib
import functools
import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from tqdm.auto import tqdm

from transfer.data.images.decode import decode
from transfer.data.images.levels import Levels
from transfer.data.shards.prefetch import Contents
from transfer.errors import TransferError

JPEG_QUALITY = 72
PAGE_BUDGET = 8_000_000  # characters of all pictures on a page


class Thumbnails:
    """Makes pictures of the images at `paths` until a page has `budget` characters of them.

    `levels` are those of deep images, see :mod:`transfer.data.images.levels`.
    """

    def __init__(self, paths: Sequence[str], levels: Levels = (), budget: int = PAGE_BUDGET) -> None:
        self.paths, self.levels, self.left = np.array(paths, dtype=object), levels, budget

    def draw(self, rows: Sequence[int], side: int) -> dict[int, str]:
        """Return by row a data URI of a JPEG whose longer side is at most `side` pixels.

        Images that cannot be read any more, and those beyond the budget, have no picture.
        """
        order = np.array(list(dict.fromkeys(rows)), dtype=np.int64)
        found = {}
        with ThreadPoolExecutor(os.cpu_count()) as pool, contextlib.closing(Contents(self.paths, order)) as contents:
            drawn = pool.map(functools.partial(self._draw, contents, side), range(len(order)))
            bar = tqdm(drawn, "pictures", total=len(order), unit="image", disable=None, leave=False)
            for row, picture in zip(order.tolist(), bar, strict=True):
                if picture and len(picture) <= self.left:
                    self.left -= len(picture)
                    found[row] = picture
        return found

    def _draw(self, contents: Contents, side: int, place: int) -> str:
        try:
            content = contents[place]
            file = io.BytesIO(content) if isinstance(content, bytes) else content
            image = decode(file, name=contents.path(place), at_least=side, levels=self.levels)
        except (TransferError, OSError):
            return ""
        image.thumbnail((side, side))
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=JPEG_QUALITY)
        return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"
