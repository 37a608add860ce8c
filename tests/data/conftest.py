"""Small pictures, trees of them, and a file server that can misbehave."""

import http.server
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def picture() -> Callable[..., Path]:
    """Write a smooth random picture, different for each seed; make its folders."""

    def write(path: Path, seed: int = 0, size: tuple[int, int] = (40, 30)) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(path)
        return path

    return write


@pytest.fixture
def tree(tmp_path: Path, picture: Callable[..., Path]) -> Callable[..., Path]:
    """Write one picture for each of the relative paths; return their root."""

    def write(*names: str) -> Path:
        root = tmp_path / "set"
        for seed, name in enumerate(names):
            picture(root / name, seed)
        return root

    return write


@dataclass
class Server:
    """What is served, how it misbehaves, and what was asked of it."""

    files: dict[str, bytes] = field(default_factory=dict)
    etag: str | None = '"one"'
    cut_after: list[int] = field(default_factory=list)  # bytes, for one answer each
    ranges: bool = True
    status: dict[str, int] = field(default_factory=dict)
    asked: list[tuple[str, str | None]] = field(default_factory=list)  # path, Range
    url: str = ""


@pytest.fixture
def server() -> Iterator[Server]:
    """Serve files with ranges on this machine, cutting connections where told to."""
    state = Server()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers["Range"]
            state.asked.append((self.path, wanted))
            if self.path in state.status or self.path not in state.files:
                self.send_error(state.status.get(self.path, 404))
                return
            content = state.files[self.path]
            start = 0
            if wanted and state.ranges and self.headers["If-Range"] == state.etag:
                start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start and start >= len(content):
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            if state.etag:
                self.send_header("ETag", state.etag)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            rest = content[start:]
            self.wfile.write(rest[: state.cut_after.pop(0)] if state.cut_after else rest)

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        state.url = f"http://127.0.0.1:{listening.server_address[1]}"
        yield state
        listening.shutdown()
        thread.join()
