"""Corrections of predictions: the images, and a CSV of decisions that `transfer update RUN --corrections` reads.

The CSV is that of `transfer review`: a line is appended for each decision and never changed, so that nothing is lost
by a kill, two tabs or two servers.
"""

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from transfer.data.corrections import CORRECTED_IMAGES, Correction, CorrectionFile, settle
from transfer.errors import TransferError
from transfer.runtime.files import atomic_write, open_regular

CORRECTIONS_FOLDER, CORRECTIONS_FILE = "corrections", "labels.csv"
MAX_CORRECTION_LETTERS = 200  # characters


class CorrectionFolder:
    """The folder ``corrections/`` of the run folder `run`; it is made with the first correction.

    An image is known by the sha256 of its file, which is also its name there: names of uploaded files name nothing.
    """

    def __init__(self, run: Path) -> None:
        self.path = (run / CORRECTIONS_FOLDER).absolute()
        self.file = CorrectionFile(self.path / CORRECTIONS_FILE)

    def list_corrections(self) -> list[dict[str, Any]]:
        """Return the corrections that hold, the newest first: ``id`` (sha256), ``label``, ``predicted``, ``when``.

        ``domain`` is "" where nobody stated one. ``seen`` is the number of decisions on the image so far.
        """
        decisions = self.file.read()
        held = settle(decisions)
        counts: dict[str, int] = {}
        last: dict[str, int] = {}
        for place, each in enumerate(decisions):
            counts[each.path] = counts.get(each.path, 0) + 1
            last[each.path] = place
        newest = sorted(held, key=lambda path: -last[path])
        return [_describe(held[path], counts[path]) for path in newest]

    def count_decisions(self, digest: str) -> int:
        """Return how many decisions there are on the image with this sha256."""
        return self.count_all_decisions().get(digest, 0)

    def count_all_decisions(self) -> dict[str, int]:
        """Return how many decisions there are on each image, by its sha256."""
        return dict(Counter(each.sha256 for each in self.file.read()))

    def add(
        self,
        content: bytes,
        suffix: str,
        label: str,
        predicted: str = "",
        seen: int | None = None,
        domain: str = "",
        classes: Collection[str] = (),
    ) -> bool:
        """Store an image and its class; return False, and store nothing, if others than `seen` decisions were made.

        Parameters
        ----------
        content : bytes
            The image file, as it was uploaded.
        suffix : str
            Of its format, such as ``.jpg``.
        predicted : str
            The class that the model predicted, if any.
        domain : str
            The true domain, if a person states it.
        classes : collection of str
            Those of the run: such a label stays as it is, whatever it holds.

        Raises
        ------
        TransferError
            The label is empty, or label or domain are no plain text, or the folder cannot be written.
        """
        label = label if label in classes else clean_label(label)
        domain = clean_label(domain, what="domain") if domain.strip() else ""
        digest = hashlib.sha256(content).hexdigest()
        image = self.path / CORRECTED_IMAGES / f"{digest}{suffix}"
        with self._lock():
            if seen is not None and seen != self.count_decisions(digest):
                return False
            if not image.is_file():
                with atomic_write(image) as temporary:
                    temporary.write_bytes(content)
            when = datetime.now(UTC).isoformat(timespec="seconds")
            return self.file.append(Correction(str(image), digest, predicted, label, when, "relabel", domain))

    def undo(self, digest: str, seen: int | None = None) -> bool:
        """Take back the last correction of an image; return False if others than `seen` decisions were made on it.

        The image is removed with its last correction.

        Raises
        ------
        TransferError
            There is no correction of this image, or the folder cannot be written.
        """
        with self._lock():
            held = self._find(digest)
            if held is None:
                raise TransferError("there is no correction of this image to undo")
            if seen is not None and seen != self.count_decisions(digest):
                return False
            when = datetime.now(UTC).isoformat(timespec="seconds")
            self.file.append(Correction(held.path, digest, held.old, "", when, "undo"))
            if self._find(digest) is None:
                try:
                    (self.path / CORRECTED_IMAGES / Path(held.path).name).unlink(missing_ok=True)
                except OSError as error:
                    raise TransferError(f"cannot remove {held.path}: {error.strerror or error}") from error
            return True

    def read_image(self, digest: str) -> bytes | None:
        """Return the file of a corrected image; None if there is no correction of it."""
        held = self._find(digest)
        if held is None:
            return None
        try:  # by its name here, as the run folder may have moved
            with open_regular(self.path / CORRECTED_IMAGES / Path(held.path).name) as file:
                return file.read()
        except OSError:
            return None

    def _find(self, digest: str) -> Correction | None:
        return next((each for each in settle(self.file.read()).values() if each.sha256 == digest), None)

    def _lock(self) -> FileLock:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TransferError(f"cannot write {self.path}: {error.strerror or error}") from error
        return FileLock(self.path / ".lock")


def _describe(correction: Correction, seen: int) -> dict[str, Any]:
    return {
        "id": correction.sha256,
        "label": correction.new,
        "domain": correction.domain,
        "predicted": correction.old,
        "when": correction.when,
        "seen": seen,
    }


def clean_label(label: str, what: str = "class") -> str:
    """Return the name of a class, or of `what` it is, with single spaces.

    Raises
    ------
    TransferError
        It is empty, longer than `MAX_CORRECTION_LETTERS`, or has control characters.

    Examples
    --------
    >>> clean_label("  coffee   mug ")
    'coffee mug'
    """
    cleaned = " ".join(label.split())
    if not cleaned:
        raise TransferError(f"a correction needs the name of a {what}")
    if len(cleaned) > MAX_CORRECTION_LETTERS:
        raise TransferError(f"the name of the {what} has more than {MAX_CORRECTION_LETTERS} characters")
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in cleaned):
        raise TransferError(f"the name of the {what} has control characters")
    return cleaned
