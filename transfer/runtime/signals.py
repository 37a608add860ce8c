"""SIGINT and SIGTERM: finish the current step, save, then stop."""

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
    """A run was stopped by the signal `number`, after its state was saved."""

    def __init__(self, number: int) -> None:
        name = signal.Signals(number).name
        super().__init__(f"stopped by {name}, all saved: the same command with --resume continues from here")
        self.number = number


@contextmanager
def defer_stop_signals() -> Iterator[None]:
    """Within the block, record SIGINT and SIGTERM instead of ending the process; a second signal ends it as usual.

    The code within checks :func:`stop_requested` where it can stop, saves, and calls :func:`raise_if_stop_requested`.
    A nested block does nothing, nor does one outside the main thread, which alone receives signals.
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
    """Return whether a stop signal was received."""
    return bool(_received)


def raise_if_stop_requested() -> None:
    """Stop if a stop signal was received.

    Raises
    ------
    StoppedBySignal
        A signal was received.
    """
    if _received:
        raise StoppedBySignal(_received[0])


def raise_stopped() -> None:
    """Stop because this process, or another one of the run, received a stop signal.

    Raises
    ------
    StoppedBySignal
        Always.
    """
    raise StoppedBySignal(_received[0] if _received else signal.SIGTERM)


def _receive(number: int, frame: FrameType | None) -> None:
    if _received:
        signal.signal(number, _previous_handlers[number])
        signal.raise_signal(number)
        return
    _received.append(number)
    # print or a logger may be interrupted by the signal and are not reentrant.
    os.write(2, b"transfer: stopping after this step; send the signal again to end at once\n")
