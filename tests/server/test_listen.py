import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

pytest.importorskip("uvicorn", reason="needs the extra 'server'")

import uvicorn
from fastapi import FastAPI, Request

from transfer.errors import TransferError
from transfer.server import listen
from transfer.server.listen import StoppableServer, TimedProtocol, bind, serve_until_stopped


@pytest.fixture
def app():
    made = FastAPI()

    @made.post("/echo")
    async def echo(request: Request, wait: float = 0) -> int:
        body = await request.body()
        await __import__("asyncio").sleep(wait)
        return len(body)

    return made


@contextlib.contextmanager
def serving(app, seconds=0.3):
    listening = bind("127.0.0.1", 0)
    protocol = type("Short", (TimedProtocol,), {"seconds": seconds})
    server = StoppableServer(uvicorn.Config(app, http=protocol, log_level="error", timeout_graceful_shutdown=5))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield listening.getsockname(), server
    finally:
        server.should_exit = True
        thread.join(20)
        listening.close()


def receive_all(connection):
    """Return all that comes until the other side closes, and the seconds that it took."""
    connection.settimeout(20)
    started, parts = time.monotonic(), []
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(4096):
            parts.append(part)
    return b"".join(parts), time.monotonic() - started


@pytest.mark.parametrize(
    "start",
    [
        b"",
        b"POST /ec",
        b"POST /echo HTTP/1.1\r\nHost: a\r\n",
        b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nx",
    ],
)
def test_slow_senders_are_cut_off(app, start):
    with serving(app) as (address, _), socket.create_connection(address) as connection:
        connection.sendall(start)
        _, seconds = receive_all(connection)
        assert seconds < 10


def test_a_sender_of_single_bytes_is_cut_off(app):
    with serving(app) as (address, _), socket.create_connection(address) as connection:
        started = time.monotonic()
        with contextlib.suppress(OSError):
            while time.monotonic() - started < 15:
                connection.sendall(b"G")
                time.sleep(0.05)
        assert time.monotonic() - started < 15


def test_a_connection_serves_several_requests(app):
    request = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
    with serving(app, seconds=5) as (address, _), socket.create_connection(address) as connection:
        connection.settimeout(10)
        for _ in range(3):
            connection.sendall(request)
            answer = b""
            while not answer.endswith(b"\r\n\r\n3"):
                answer += connection.recv(4096)
            assert answer.startswith(b"HTTP/1.1 200")


def test_the_number_of_connections_is_bounded(app, monkeypatch):
    monkeypatch.setattr(listen, "MAX_OPEN_CONNECTIONS", 2)
    with serving(app, seconds=5) as (address, _), contextlib.ExitStack() as stack:
        connections = [stack.enter_context(socket.create_connection(address)) for _ in range(3)]
        assert receive_all(connections[2])[0] == b""


def test_requests_in_flight_are_answered_when_the_server_stops(app):
    with serving(app, seconds=5) as (address, server), socket.create_connection(address) as connection:
        connection.sendall(b"POST /echo?wait=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")
        time.sleep(0.3)
        server.should_exit = True
        answer, _ = receive_all(connection)
        assert answer.startswith(b"HTTP/1.1 200")
        assert json.loads(answer.rpartition(b"\r\n\r\n")[2]) == 3


def test_small_packets_are_sent_at_once(app):
    seen = []

    class Noted(TimedProtocol):
        def connection_made(self, transport):
            seen.append(transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            super().connection_made(transport)

    with bind("127.0.0.1", 0) as listening:
        server = StoppableServer(uvicorn.Config(app, http=Noted, log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        with socket.create_connection(listening.getsockname()):
            while not seen:
                time.sleep(0.01)
        server.should_exit = True
        thread.join(20)
    assert seen[0]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_the_usual_end(app, number):
    before = signal.getsignal(number)
    listening = bind("127.0.0.1", 0)

    def stop():
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(listening.getsockname(), 1):
                break
            time.sleep(0.05)
        time.sleep(0.2)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=stop)
    thread.start()
    serve_until_stopped(app, listening, 1)
    thread.join(20)
    assert signal.getsignal(number) is before


SLOW_SERVER = """
import asyncio, sys
from fastapi import FastAPI, Request
from transfer.server.listen import bind, serve_until_stopped

app = FastAPI()

@app.post("/echo")
async def echo(request: Request, wait: float = 0) -> int:
    body = await request.body()
    await asyncio.sleep(wait)
    return len(body)

listening = bind("127.0.0.1", 0)
listening.listen()
print(listening.getsockname()[1], flush=True)
serve_until_stopped(app, listening, float(sys.argv[1]))
"""
ASK = b"POST /echo%s HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"


@pytest.mark.parametrize(
    ("seconds", "signals", "said"),
    [
        (20, [signal.SIGINT, signal.SIGINT], "stopped: 3 requests were not answered"),  # the second ends it at once
        (1, [signal.SIGTERM], "stopped: 3 requests were not answered"),  # they take too long
    ],
)
def test_requests_that_are_cut_off_at_the_end_are_counted_in_a_line(seconds, signals, said):
    command = [sys.executable, "-c", SLOW_SERVER, str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        port = int(process.stdout.readline())
        with contextlib.ExitStack() as stack:
            connections = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(6)]
            for connection in connections:  # all stay open
                connection.settimeout(20)
                connection.sendall(ASK % b"")
                assert connection.recv(4096).startswith(b"HTTP/1.1 200")
            for connection in connections[:2]:
                connection.sendall(ASK % b"?wait=30")
            connections[2].sendall(ASK[:-3] % b"")  # its body never comes
            time.sleep(0.3)
            for number in signals:
                process.send_signal(number)
                time.sleep(0.02)
            error = process.communicate(timeout=15)[1]
    assert process.returncode == 0
    assert error.splitlines() == [said]


def test_an_address_that_cannot_be_used_is_one_line():
    with bind("127.0.0.1", 0) as taken:
        taken.listen()
        with pytest.raises(TransferError, match="0 takes a free one"):
            bind("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(TransferError, match=r"--host nowhere\.invalid"):
        bind("nowhere.invalid", 0)
