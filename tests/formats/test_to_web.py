"""The exported page in a real browser, served from its folder, on a phone and on a desk."""

import functools
import http.server
import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from web_pages import needs_chromium, open_chromium

from transfer.config.commands import ExportConfig
from transfer.data.images.preprocessing import Preprocessing, prepare
from transfer.formats import export
from transfer.formats.to_web import PAGE_FILES
from transfer.formats.web_runtime import read_web_runtime

RUNTIME = os.environ.get("TRANSFER_TEST_WEB_RUNTIME")  # a folder or .tgz of onnxruntime-web; else npm downloads it


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *what):
        pass


@pytest.fixture
def serve():
    servers = []

    def start(folder):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def browser():
    with open_chromium() as opened:
        yield opened


def wait_for(page, start):
    """Wait until the page's message starts so."""
    for _ in range(3000):
        text = page.locator("#message").inner_text()
        if text.startswith(start):
            return text
        page.wait_for_timeout(20)
    raise AssertionError(f"the message is {text!r}")


def photo(path, size=(57, 41), seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 9, 3)).astype(np.uint8)
    Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(path)
    return path


@needs_chromium
def test_the_page_predicts_as_the_run_does(saved, own, browser, serve, tmp_path):
    runtime = Path(RUNTIME) if RUNTIME else None
    if not read_web_runtime(runtime).files:
        pytest.skip("needs onnxruntime-web: npm and a network, or TRANSFER_TEST_WEB_RUNTIME")
    run = saved()
    exported = export(ExportConfig(run, "web", tmp_path / "site", web_runtime=runtime))
    assert exported.difference <= 1e-4
    about = json.loads((tmp_path / "site" / "model.json").read_text())
    address = serve(tmp_path / "site")
    file = photo(tmp_path / "photo.png")
    view = prepare(
        torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1), Preprocessing(**about["preprocessing"])
    )
    wanted = own(run, view[None])["object"][0]
    for width in (390, 1280):
        page, errors, asked = browser.new_page(viewport={"width": width, "height": 800}), [], []
        page.on("pageerror", lambda error, errors=errors: errors.append(str(error)))
        page.on("console", lambda line, errors=errors: errors.append(line.text) if line.type == "error" else None)
        page.on("request", lambda request, asked=asked: asked.append(request.url))
        page.goto(address)
        wait_for(page, "ready")
        page.set_input_files("#file", file)
        wait_for(page, "classified photo.png")
        rows = page.locator("#answers section").first.locator("li")
        shown = {row.locator("span").inner_text(): row.locator("b").inner_text() for row in rows.all()}
        for name, probability in zip(about["heads"]["object"]["classes"], wanted, strict=True):
            assert float(shown[name].split()[0]) == pytest.approx(100 * probability, abs=1)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        (tmp_path / "text.png").write_text("no image")
        page.set_input_files("#file", tmp_path / "text.png")
        assert "cannot read it" in wait_for(page, "text.png:")
        assert page.locator("#answers").inner_text() == ""
        page.evaluate(DROP, [list(file.read_bytes()), "dropped.png"])
        wait_for(page, "classified dropped.png")
        assert errors == []
        assert all(url.startswith((address, "blob:", "data:")) for url in asked)
        page.close()


DROP = """([bytes, name]) => {
    const transfer = new DataTransfer();
    transfer.items.add(new File([new Uint8Array(bytes)], name));
    document.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, cancelable: true }));
}"""
PREPARE = """async ([pixels, width, height, record]) => {
    const { prepare } = await import("./resize.js");
    return Array.from(prepare({ width, height, pixels: new Uint8ClampedArray(pixels) }, record));
}"""


@needs_chromium
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos", "box", "hamming", "nearest"])
@pytest.mark.parametrize("mode", ["center", "squash", "border"])
def test_the_page_resizes_as_the_run_does(mode, interpolation, browser, serve):
    page = browser.new_page()
    page.goto(serve(PAGE_FILES))
    made = Preprocessing((3, 32, 24), (0.5, 0.4, 0.3), (0.5,) * 3, interpolation, 0.875, mode)
    for width, height in ((90, 70), (41, 130), (20, 11)):
        low = np.random.default_rng(width).integers(0, 256, (7, 5, 3)).astype(np.uint8)
        image = np.asarray(Image.fromarray(low).resize((width, height), Image.Resampling.BICUBIC))
        wanted = prepare(torch.from_numpy(image.copy()).permute(2, 0, 1), made).numpy()
        found = page.evaluate(PREPARE, [image.reshape(-1).tolist(), width, height, made.to_dict()])
        apart = np.abs(np.array(found).reshape(wanted.shape) - wanted.astype(int))
        assert apart.max() <= (0 if interpolation == "nearest" else 2)
        assert apart.mean() < 0.3
    page.close()


def test_without_onnxruntime_web_the_folder_says_what_is_missing(saved, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    exported = export(ExportConfig(saved(), "web", tmp_path / "site"))
    assert any("npm is not installed" in line for line in exported.lines())
    assert "npm pack onnxruntime-web@" in (tmp_path / "site" / "README.txt").read_text()
    assert not (tmp_path / "site" / "ort").exists()
    assert "model.onnx" in {file.name for file in exported.files}
