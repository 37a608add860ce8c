"""Standard streams that cannot end a run: results are computed and saved even if no line can be printed."""

import io
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from transfer.errors import TransferError

_CHUNK = 1 << 16  # bytes read at once
_PAUSE = 0.05  # seconds without input, after which None is yielded


class OutputStream:
    """A text stream that escapes what its encoding lacks and, after an error, drops what is written.

    Parameters
    ----------
    stream : text stream or None
        None: it was closed before the program started.
    name : str
        For messages, such as ``"standard output"``.

    Attributes
    ----------
    error : OSError or None
        Why nothing more is written: a full disk, or a pipe whose reader has ended.
    """

    def __init__(self, stream: TextIO | None, name: str) -> None:
        self.stream: Any = stream or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        self.name = name
        self.closed_before = stream is None
        self.error: OSError | None = None

    def write(self, text: str) -> int:
        """Write `text`; characters that the encoding lacks become escapes, a backslash and their code."""
        if self.error is None:
            try:
                self._write(text)
            except OSError as error:
                self.error = error
        return len(text)

    def flush(self) -> None:
        """Write what is buffered."""
        if self.error is None:
            try:
                self.stream.flush()
            except OSError as error:
                self.error = error

    def finish(self) -> None:
        """Flush; after an error, send what is still buffered nowhere, so that the interpreter ends in silence."""
        self.flush()
        if self.error and not self.closed_before:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.stream.fileno())
            os.close(nowhere)
        if self.closed_before:
            self.stream.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def _write(self, text: str) -> None:
        try:
            self.stream.write(text)
        except UnicodeEncodeError:
            encoding = self.stream.encoding
            self.stream.write(text.encode(encoding, "backslashreplace").decode(encoding))


@contextmanager
def protect_streams() -> Iterator[None]:
    """Make standard output and standard error an :class:`OutputStream` each within the context."""
    before = sys.stdout, sys.stderr
    out, err = OutputStream(before[0], "standard output"), OutputStream(before[1], "standard error")
    sys.stdout, sys.stderr = out, err
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        out.finish()
        err.finish()


def is_writable(stream: Any) -> bool:
    """Return whether what is written to `stream` still arrives: see :class:`OutputStream`."""
    return not isinstance(stream, OutputStream) or stream.error is None


def check_output(stream: Any) -> None:
    """Raise TransferError if lines for `stream` were lost, unless their reader ended, as `head` does."""
    stream.flush()
    if not is_writable(stream) and not isinstance(stream.error, BrokenPipeError):
        raise TransferError(f"{stream.name}: {stream.error.strerror}, so lines are missing there")


def is_unicode(stream: Any) -> bool:
    """Return whether the encoding of `stream` has all characters."""
    return "utf" in (getattr(stream, "encoding", None) or "utf-8").lower()


def read_chunks(stream: TextIO) -> Iterator[bytes | None]:
    """Yield what `stream` contains as UTF-8, or as the bytes of a standard input; None while nothing comes.

    None is only yielded for pipes and terminals, where the system can tell.
    """
    try:
        handle = stream.fileno() if os.name != "nt" else -1
    except (OSError, ValueError):  # no file of the system
        handle = -1
    if handle < 0:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="surrogateescape")  # names that are not valid text in its encoding
        yield from (line.encode("utf-8", "surrogateescape") for line in stream)
        return
    while True:
        while not select.select([handle], [], [], _PAUSE)[0]:
            yield None
        chunk = os.read(handle, _CHUNK)
        if not chunk:
            return
        yield chunk
