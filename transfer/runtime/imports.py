"""Import what a command needs in less time: without torch's compiler, and with the garbage collector paused."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

from transfer.runtime.compiler import defer_compiler


@contextmanager
def import_quickly() -> Iterator[None]:
    """Within the block of imports, defer torch's compiler and collect no garbage; for a process that runs one command.

    Imports make a million objects, nearly all of which stay. The collector would visit them again and again, which
    takes 0.5 s of processor time; after the block it leaves them alone.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        with defer_compiler():
            yield
        gc.freeze()
    finally:
        if was_enabled:
            gc.enable()
