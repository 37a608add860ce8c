"""A run folder belongs to one process at a time."""

import contextlib
from pathlib import Path

from filelock import FileLock, Timeout

from transfer.errors import TransferError

LOCK_FILE = ".lock"


class FolderLock:
    """Holds a folder for this process until it is released, collected, or the process ends, however it does.

    Within the process the same folder may be held several times.

    Parameters
    ----------
    folder : Path
        It must exist.

    Raises
    ------
    TransferError
        Another process holds it, or the lock cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder.absolute() / LOCK_FILE
        self._lock = FileLock(self._file, timeout=0, thread_local=False, is_singleton=True)
        try:
            self._lock.acquire()
        except Timeout as error:
            raise TransferError(
                f"another process is at work on the run in {folder}: wait for it, stop it, or name another folder"
            ) from error
        except OSError as error:
            raise TransferError(f"cannot write the run folder {folder}: {error.strerror or error}") from error
        self._held = True

    def release(self) -> None:
        """Let go; the last one in this process removes the file."""
        if self._held:
            self._held = False
            if self._lock.lock_counter == 1:
                self._remove()
            self._lock.release()
            if not self._lock.is_locked:
                self._remove()  # Windows removes no file that is open

    def _remove(self) -> None:
        with contextlib.suppress(OSError):  # left there, it is known as ours, and the next run takes it
            self._file.unlink(missing_ok=True)

    def __del__(self) -> None:
        if getattr(self, "_held", False):
            self.release()
