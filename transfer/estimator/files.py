"""What the estimators need of image files: their digests, and errors of the type that scikit-learn expects."""

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np

from transfer.data.images.decode import BadImage
from transfer.data.pixel_files import InputError
from transfer.errors import TransferError


@contextmanager
def as_value_error() -> Iterator[None]:
    """Convert a TransferError raised within the context to an InputError, which is a ValueError."""
    try:
        yield
    except InputError:
        raise
    except TransferError as error:
        raise InputError(str(error)) from error


def digests(paths: np.ndarray) -> np.ndarray:
    """Return the sha256 of each file's bytes, in hex, ndarray of str (N,); raise BadImage if one cannot be read."""

    def digest(path: str) -> str:
        try:
            with open(path, "rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise BadImage(f"bad image {path}: {error.strerror or error}") from error

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return np.array(list(pool.map(digest, paths.tolist())))
