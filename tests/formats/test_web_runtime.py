import shutil
import subprocess
import tarfile
from types import SimpleNamespace

import pytest

from transfer.errors import TransferError
from transfer.formats import web_runtime
from transfer.formats.web_runtime import RUNTIME_VERSION, WebRuntime, read_web_runtime


@pytest.fixture
def package(tmp_path):
    folder = tmp_path / "package" / "dist"
    folder.mkdir(parents=True)
    for name in WebRuntime.names:
        (folder / name).write_text(name)
    with tarfile.open(tmp_path / "ort.tgz", "w:gz") as archive:
        archive.add(tmp_path / "package", "package")
    return tmp_path


@pytest.mark.parametrize("place", ["package", "package/dist", "ort.tgz"])
def test_a_folder_or_archive_is_read(place, package):
    found = read_web_runtime(package / place)
    assert found.files == {name: name.encode() for name in WebRuntime.names}
    assert str(package / place) in found.note


@pytest.mark.parametrize("place", ["nowhere", "empty", "text.tgz"])
def test_anything_else_is_refused(place, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.tgz").write_text("text")
    with pytest.raises(TransferError, match=rf"--web-runtime .*{place}: not the npm package"):
        read_web_runtime(tmp_path / place)


def test_npm_downloads_the_version_that_the_page_is_tested_with(package, monkeypatch):
    def run(command, cwd, **how):
        assert command[1:3] == ["pack", f"onnxruntime-web@{RUNTIME_VERSION}"]
        shutil.copy(package / "ort.tgz", cwd)

    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(web_runtime.subprocess, "run", run)
    found = read_web_runtime(None)
    assert found.files.keys() == set(WebRuntime.names)
    assert RUNTIME_VERSION in found.note


def test_without_npm_or_a_network_a_note_says_what_to_do(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert "npm is not installed" in read_web_runtime(None).note
    assert read_web_runtime(None).files == {}

    def run(command, **how):
        raise subprocess.CalledProcessError(1, command, stderr="npm error code ENOTFOUND\nmore")

    monkeypatch.setattr(web_runtime, "shutil", SimpleNamespace(which=lambda name: "/usr/bin/npm"))
    monkeypatch.setattr(web_runtime.subprocess, "run", run)
    assert "npm failed: npm error code ENOTFOUND)" in read_web_runtime(None).note
