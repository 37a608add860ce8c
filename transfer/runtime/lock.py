"""Locks, so that one process at a time writes a file or a run folder."""

import contextlib
from pathlib import Path

from filelock import FileLock, Timeout

from transfer.errors import TransferError

LOCK_FILE = ".lock"


class PathLock:
    """Locks `path` for this process until released, garbage-collected, or the process ends in any way.

    The same process may lock a path several times.

    Parameters
    ----------
    path : Path
        What is written to.
    file : Path
        The lock file, in an existing folder.
    kind : str
        What `path` is, for messages.

    Raises
    ------
    TransferError
        Another process has locked it, or the lock file cannot be written.
    """

    def __init__(self, path: Path, file: Path, kind: str = "file") -> None:
        self._file = file.absolute()
        self._lock = FileLock(self._file, timeout=0, thread_local=False, is_singleton=True)
        try:
            self._lock.acquire()
        except Timeout as error:
            raise TransferError(
                f"another process is writing to the {kind} {path}: wait for it, stop it, or use another {kind}"
            ) from error
        except OSError as error:
            raise TransferError(f"cannot write the {kind} {path}: {error.strerror or error}") from error
        self._held = True

    def release(self) -> None:
        """Release the lock; the last release in this process removes the file."""
        if self._held:
            self._held = False
            if self._lock.lock_counter == 1:
                self._remove()
            self._lock.release()
            if not self._lock.is_locked:
                self._remove()  # Windows cannot remove an open file

    def _remove(self) -> None:
        with contextlib.suppress(OSError):  # a file left behind is reused by the next run
            self._file.unlink(missing_ok=True)

    def __del__(self) -> None:
        if getattr(self, "_held", False):
            self.release()


class FolderLock(PathLock):
    """Locks an existing run folder, as :class:`PathLock` does."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, folder / LOCK_FILE, "run folder")
