"""A lock on a run folder, so that one process at a time writes there."""

import contextlib
from pathlib import Path

from filelock import FileLock, Timeout

from transfer.errors import TransferError

LOCK_FILE = ".lock"


class FolderLock:
    """Locks a folder for this process until released, garbage-collected, or the process ends in any way.

    The same process may lock a folder several times.

    Parameters
    ----------
    folder : Path
        An existing folder.

    Raises
    ------
    TransferError
        Another process has locked it, or the lock file cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder.absolute() / LOCK_FILE
        self._lock = FileLock(self._file, timeout=0, thread_local=False, is_singleton=True)
        try:
            self._lock.acquire()
        except Timeout as error:
            raise TransferError(
                f"another process is writing to the run folder {folder}: wait for it, stop it, or use another folder"
            ) from error
        except OSError as error:
            raise TransferError(f"cannot write the run folder {folder}: {error.strerror or error}") from error
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
