"""Training images of a run that are like an image: nearest in the features that its heads see."""

import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from transfer.data.images.decode import decode
from transfer.data.shards.address import parse_address, read_member
from transfer.errors import TransferError
from transfer.feature_cache import TrunkCache
from transfer.runs.image_list import DIGEST, ListedImage, read_image_list
from transfer.runtime.files import open_regular
from transfer.server.page import encode_small
from transfer.server.served_run import ServedRun

MAX_INDEXED = 5000  # training images that are compared; of more, a sample of each class
CHUNK = 16  # images computed between two requests
CACHED_CHUNK = 256
NEIGHBOURS_SHOWN = 3
THUMBNAIL_SIDE = 240  # pixels of the longer side, at most


@dataclass
class _Progress:
    done: int = 0
    lost: int = 0


class TrainingIndex:
    """Features of the training images of a run, found by :meth:`steps` while the server runs.

    Features come from the disk cache that training filled, or are computed from the images, where these still exist.
    """

    def __init__(self, run: ServedRun, cache: TrunkCache | None = None) -> None:
        self.run, self._progress = run, _Progress()
        self.images: list[ListedImage] = []
        self.problem = ""
        self._features: np.ndarray | None = None
        self._rows = np.empty(0, np.int64)
        self._cache = cache or TrunkCache()
        try:
            listed = [image for image in read_image_list(run.folder) if image["split"] == "train"]
            self.images = _sample(listed, run.main)
            self.problem = "" if self.images else "the run lists no training images"
        except TransferError as error:
            self.problem = str(error)

    def describe(self) -> dict[str, Any]:
        """Return how far it is: ``state`` (ready, loading, missing), ``images`` found, ``lost`` ones, ``problem``."""
        state = "missing" if self.problem else "loading" if self._features is None else "ready"
        done, lost = self._progress.done, self._progress.lost
        return {"state": state, "images": done, "of": len(self.images), "lost": lost, "problem": self.problem}

    def steps(self) -> Iterator[None]:
        """Find the features, some images at a time; the thread of the model advances it."""
        if self.problem:
            return
        model = self.run.main_model
        paths, digests = (np.array([image[key] for image in self.images]) for key in ("path", DIGEST))
        feed = self._cache.feed(model, paths, digests, batch_size=CACHED_CHUNK, workers=1)
        rows = np.arange(len(paths))
        cached = feed.find_cached(rows)
        yield
        parts: list[np.ndarray] = []
        found: list[np.ndarray] = []
        chunks = [(rows[cached], CACHED_CHUNK), (rows[~cached], CHUNK)]
        for chunk in (part[i : i + size] for part, size in chunks for i in range(0, len(part), size)):
            readable = chunk if cached[chunk].all() else chunk[[self.read(row) is not None for row in chunk.tolist()]]
            self._progress.lost += len(chunk) - len(readable)
            if len(readable):
                model.eval()
                with torch.inference_mode():
                    batches = [model.features(x).float().cpu().numpy() for _, x in feed.batches(readable)]
                features = np.concatenate(batches)
                parts.append(features / np.linalg.norm(features, axis=1, keepdims=True).clip(1e-12))
                found.append(readable)
            self._progress.done += len(readable)
            yield
        if not parts:
            self.problem = "none of the run's training images is where it was"
            return
        self._rows = np.concatenate(found)
        self._features = np.concatenate(parts)

    def find(self, features: np.ndarray, digest: str, label: str | None = None) -> list[dict[str, Any]]:
        """Return the nearest training images, the nearest first; with `label` those of this class alone.

        Parameters
        ----------
        features : ndarray, shape (F,)
        digest : str
            The sha256 of the image's file: a training image with the same bytes is marked.

        Returns
        -------
        list of dict
            ``row``, ``labels`` (by head), ``similarity`` (cosine), ``same``, and ``picture``: whether it can be shown.
        """
        if self._features is None:
            return []
        similarity = self._features @ (features / max(float(np.linalg.norm(features)), 1e-12))
        if label is not None:
            of_class = np.array([self.images[row].get(self.run.main) == label for row in self._rows.tolist()])
            similarity = np.where(of_class, similarity, -np.inf)
        nearest = np.argsort(-similarity, kind="stable")[:NEIGHBOURS_SHOWN]
        return [
            self._describe(int(self._rows[place]), float(similarity[place]), digest)
            for place in nearest.tolist()
            if np.isfinite(similarity[place])
        ]

    def _describe(self, row: int, similarity: float, digest: str) -> dict[str, Any]:
        image = self.images[row]
        labels = {name: image.get(name, "") for name in self.run.specs if image.get(name)}
        return {
            "row": row,
            "labels": labels,
            "similarity": round(similarity, 4),
            "same": image[DIGEST] == digest,
            "picture": self.read(row) is not None,
        }

    def read(self, row: int) -> bytes | None:
        """Return the file of a training image; None if it is gone or has changed since the training."""
        image = self.images[row]
        try:
            content = _read_file(image["path"])
        except (OSError, TransferError):
            return None
        return content if hashlib.sha256(content).hexdigest() == image[DIGEST] else None

    def draw(self, row: int) -> bytes | None:
        """Return a small JPEG of a training image; None if it is gone, has changed, or there is none of this row."""
        content = self.read(row) if 0 <= row < len(self.images) else None
        return None if content is None else draw_small(content, THUMBNAIL_SIDE)


def draw_small(content: bytes, side: int) -> bytes:
    """Return the image of a file as a JPEG, its longer side `side` pixels at most; raise BadImage if it is none."""
    return encode_small(decode(io.BytesIO(content), name="image", at_least=side, levels=None), side)


def _read_file(path: str) -> bytes:
    member = parse_address(path)
    if member is not None:
        if member.remote:
            raise TransferError("a remote shard is not read for a picture")
        return read_member(member)
    with open_regular(Path(path)) as file:
        return file.read()


def _sample(images: list[ListedImage], column: str) -> list[ListedImage]:
    """Return `MAX_INDEXED` of `images` at most: evenly spaced ones after sorting by class."""
    if len(images) <= MAX_INDEXED:
        return images
    by_class = sorted(range(len(images)), key=lambda row: images[row].get(column, ""))
    chosen = sorted({by_class[place] for place in np.linspace(0, len(images) - 1, MAX_INDEXED).astype(int).tolist()})
    return [images[row] for row in chosen]
