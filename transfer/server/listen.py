"""Listen on an address until the process is stopped: requests in flight are answered, slow senders are cut off."""

import asyncio
import contextlib
import logging
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from transfer.errors import TransferError

MAX_OPEN_CONNECTIONS = 512
KEEP_ALIVE = 20  # seconds between two requests of a connection

log = logging.getLogger(__name__)


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that is bound to an address; port 0 takes a free one.

    Raises
    ------
    TransferError
        The address is not one of this machine, or the port is taken.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise TransferError(f"--host {host}: {error.strerror or error}") from error
    # asyncio sends small packets at once only where the protocol is named; else each answer takes 40 ms more.
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError as error:
        listening.close()
        raise TransferError(f"--port {port}: {error.strerror or error}; 0 takes a free one") from error
    return listening


def serve_until_stopped(app: Any, listening: socket.socket, timeout: float) -> None:
    """Serve `app` until SIGINT or SIGTERM; requests must arrive, and at the end be answered, in `timeout` seconds."""
    config = uvicorn.Config(
        app,
        http=type("BoundedProtocol", (TimedProtocol,), {"seconds": timeout}),
        ws="none",
        log_level="error",
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=max(1, round(timeout)),
    )
    with listening:
        StoppableServer(config).run(sockets=[listening])


class CutRequests(logging.Filter):
    """Counts the requests that the end of `server` cancels, instead of the traceback that uvicorn logs for each."""

    def __init__(self, server: uvicorn.Server) -> None:
        super().__init__()
        self.server, self.count = server, 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record of uvicorn is logged."""
        if not self.server.should_exit:
            return True
        if record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError):
            self.count += 1
            return False
        text = record.getMessage().rstrip()  # of the application's own end, a traceback
        return not text.endswith(("CancelledError", "timeout graceful shutdown exceeded"))


class StoppableServer(uvicorn.Server):
    """A server for which a signal is the usual end: it is not raised again once all is answered."""

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until a signal; warn if requests are then cut off, after the time for them or by a second signal."""
        cut, logger = CutRequests(self), logging.getLogger("uvicorn.error")
        logger.addFilter(cut)
        try:
            super().run(sockets)
        finally:
            logger.removeFilter(cut)
        if cut.count:
            log.warning("stopped: %d request%s not answered", cut.count, " was" if cut.count == 1 else "s were")

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop at a signal within the context; a second one ends at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class TimedProtocol(H11Protocol):
    """HTTP that closes a connection whose request has not arrived after `seconds`, from its first byte on."""

    seconds = 30.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the time of the first request."""
        super().connection_made(transport)
        self._since: float | None = self.loop.time()
        if len(self.connections) > MAX_OPEN_CONNECTIONS:
            transport.close()
            return
        self._timer = self.loop.call_later(self.seconds, self._check)

    def data_received(self, data: bytes) -> None:
        """Start the time of a request with its first byte, and stop it with its last one."""
        super().data_received(data)
        arriving = self.conn.their_state in (h11.IDLE, h11.SEND_BODY)
        self._since = (self._since or self.loop.time()) if arriving else None

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the time."""
        if hasattr(self, "_timer"):
            self._timer.cancel()
        super().connection_lost(exc)

    def _check(self) -> None:
        now = self.loop.time()
        if self._since is not None and now - self._since >= self.seconds + 1:  # the reader's own limit comes first
            self.transport.abort()
            return
        wait = self.seconds if self._since is None else self._since + self.seconds + 1 - now
        self._timer = self.loop.call_later(max(wait, 0.05), self._check)
