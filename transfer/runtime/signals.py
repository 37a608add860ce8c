"""A run that is asked to stop finishes its step and saves where it is."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)

_received: list[int] = []
_previous_handlers: dict[int, Any] = {}


class StoppedBySignal(KeyboardInterrupt):
    """A run was stopped by the signal `number`, after all of it was saved."""

    def __init__(self, number: int) -> None:
        name = signal.Signals(number).name
        super().__init__(f"stopped by {name}, all saved: the same command with --resume goes on from here")
        self.number = number


@contextmanager
def defer_stop_signals() -> Iterator[None]:
    """While this lasts, let SIGINT and SIGTERM only ask to stop; a second one ends the process as they always do.

    Whoever works meanwhile looks at :func:`asked` where it can stop, saves, and calls :func:`check`. Within another
    one, or outside the main thread, which alone hears signals, this does nothing.
    """
    if _previous_handlers or threading.current_thread() is not threading.main_thread():
        yield
        return
    for number in STOP_SIGNALS:
        _previous_handlers[number] = signal.signal(number, _receive)
    try:
        yield
    finally:
        for signum, handler in _previous_handlers.items():
            signal.signal(signum, handler)
        _previous_handlers.clear()
        _received.clear()


def stop_requested() -> bool:
    """Return whether a signal has asked to stop."""
    return bool(_received)


def raise_if_stop_requested() -> None:
    """Stop here if a signal has asked to.

    Raises
    ------
    Stopped
        One has.
    """
    if _received:
        raise StoppedBySignal(_received[0])


def raise_stopped() -> None:
    """Stop here, as a signal has asked this process or another of the run to.

    Raises
    ------
    Stopped
        Always.
    """
    raise StoppedBySignal(_received[0] if _received else signal.SIGTERM)


def _receive(number: int, frame: FrameType | None) -> None:
    if _received:
        signal.signal(number, _previous_handlers[number])
        signal.raise_signal(number)
        return
    _received.append(number)
    # Not by print or a logger: the signal may have come in the midst of one.
    os.write(2, b"transfer: stopping after this step; once more to end at once\n")
