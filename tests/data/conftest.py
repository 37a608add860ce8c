"""Small pictures, trees of them, and a file server that can misbehave."""

import http.server
import io
import tarfile
import threading
from collections.abc import Callable, Iterator, Mapping
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
    failing: list[int] = field(default_factory=list)  # a status, for one answer each
    asked: list[tuple[str, str | None]] = field(default_factory=list)  # path, Range
    sent: int = 0  # bytes
    url: str = ""


@pytest.fixture
def server() -> Iterator[Server]:
    """Serve files with ranges on this machine, cutting connections where told to."""
    state = Server()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers["Range"]
            state.asked.append((self.path, wanted))
            if self.path in state.status or self.path not in state.files or state.failing:
                self.send_error(state.failing.pop(0) if state.failing else state.status.get(self.path, 404))
                return
            content = state.files[self.path]
            start, end = 0, len(content)
            part = wanted and state.ranges and self.headers["If-Range"] in (None, state.etag)
            if part:
                first, _, last = wanted.removeprefix("bytes=").partition("-")
                start, end = int(first), min(int(last or end) + 1, end)
                if start >= len(content):
                    self.send_error(416)
                    return
            self.send_response(206 if part else 200)
            if part:
                self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(content)}")
            if state.etag:
                self.send_header("ETag", state.etag)
            self.send_header("Content-Length", str(end - start))
            self.end_headers()
            rest = content[start:end]
            rest = rest[: state.cut_after.pop(0)] if state.cut_after else rest
            state.sent += len(rest)
            self.wfile.write(rest)

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        state.url = f"http://127.0.0.1:{listening.server_address[1]}"
        yield state
        listening.shutdown()
        thread.join()


@pytest.fixture
def shard(tmp_path: Path) -> Callable[..., Path]:
    """Write files, by their names, into a tar; return it."""

    def write(files: Mapping[str, bytes | Path], name: str = "s.tar", form: int = tarfile.DEFAULT_FORMAT) -> Path:
        with tarfile.open(tmp_path / name, "w", format=form) as tar:
            for member, content in files.items():
                content = content if isinstance(content, bytes) else content.read_bytes()
                info = tarfile.TarInfo(member)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        return tmp_path / name

    return write
