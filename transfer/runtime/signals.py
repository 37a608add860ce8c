"""A run that is asked to stop finishes its step and saves where it is."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)

_asked: list[int] = []
_before: dict[int, Any] = {}


class Stopped(KeyboardInterrupt):
    """A run was stopped by the signal `number`, after all of it was saved."""

    def __init__(self, number: int) -> None:
        name = signal.Signals(number).name
        super().__init__(f"stopped by {name}, all saved: the same command with --resume goes on from here")
        self.number = number


@contextmanager
def stoppable() -> Iterator[None]:
    """While this lasts, let SIGINT and SIGTERM only ask to stop; a second one ends the process as they always do.

    Whoever works meanwhile looks at :func:`asked` where it can stop, saves, and calls :func:`check`. Within another
    one, or outside the main thread, which alone hears signals, this does nothing.
    """
    if _before or threading.current_thread() is not threading.main_thread():
        yield
        return
    for number in SIGNALS:
        _before[number] = signal.signal(number, _ask)
    try:
        yield
    finally:
        for signum, handler in _before.items():
            signal.signal(signum, handler)
        _before.clear()
        _asked.clear()


def asked() -> bool:
    """Return whether a signal has asked to stop."""
    return bool(_asked)


def check() -> None:
    """Stop here if a signal has asked to.

    Raises
    ------
    Stopped
        One has.
    """
    if _asked:
        raise Stopped(_asked[0])


def stop() -> None:
    """Stop here, as a signal has asked this process or another of the run to.

    Raises
    ------
    Stopped
        Always.
    """
    raise Stopped(_asked[0] if _asked else signal.SIGTERM)


def _ask(number: int, frame: FrameType | None) -> None:
    if _asked:
        signal.signal(number, _before[number])
        signal.raise_signal(number)
        return
    _asked.append(number)
    # Not by print or a logger: the signal may have come in the midst of one.
    os.write(2, b"transfer: stopping after this step; once more to end at once\n")
