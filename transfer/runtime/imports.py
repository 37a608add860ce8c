"""Import what a command needs in less time: without torch's compiler, and with the garbage collector paused."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

from transfer.runtime.compiler import defer_compiler


@contextmanager
def pause_collection() -> Iterator[None]:
    """Within the block, collect no garbage.

    Imports make a million objects, nearly all of which stay. The collector would visit them again and again, which
    takes 0.5 s of processor time.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def import_quickly() -> Iterator[None]:
    """Within the block of imports, defer torch's compiler and collect no garbage; for a process that runs one command.

    After the block the collector leaves alone what is there.
    """
    with defer_compiler(), pause_collection():
        yield
        gc.freeze()
