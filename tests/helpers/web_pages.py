"""Pages in a real browser: Chromium, and a web application that a thread serves."""

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

_CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

needs_chromium = pytest.mark.skipif(
    not _CHROMIUM, reason="needs an installed Chromium (Debian: apt-get install chromium)"
)


@contextmanager
def open_chromium() -> Iterator[Any]:
    """Start a browser without a window; skip the test without playwright."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    with playwright.sync_playwright() as drive:
        browser = drive.chromium.launch(executable_path=_CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def serve_in_thread(app: Any) -> Iterator[str]:
    """Serve `app` on a free port of this machine within the context, which is given the address."""
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
    server.should_exit = True
    thread.join(60)
