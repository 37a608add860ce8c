import importlib.util
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from shutil import copytree

import pytest

from transfer.config.curation import ReviewConfig
from transfer.config.shared import BackboneConfig, ImagesConfig
from transfer.data.corrections import CORRECTION_HEADERS
from transfer.errors import TransferError
from transfer.server import serve
from transfer.server.serve import check_server, prepare_review, serve_review

GLYPHNET = BackboneConfig("glyphnet")


def prepare(folder, tmp_path, **options):
    config = ReviewConfig(ImagesConfig(str(folder)), GLYPHNET, device="cpu", **options)
    return prepare_review(config, tmp_path / "review/labels.csv")


def test_a_class_is_reviewed(folder, tmp_path):
    review = prepare(folder, tmp_path, class_name="Green")
    assert len(review.queue) == 16
    assert {review.given[row] for row in review.queue} == {"green"}
    with pytest.raises(TransferError, match="no class 'gren'"):
        prepare(folder, tmp_path, class_name="gren")


def test_picks_are_reviewed_in_their_order(folder, tmp_path):
    picks = tmp_path / "picks.csv"
    named = [folder / "striped/red/3.png", folder / "plain/blue/1.png"]
    picks.write_text("path,object\n" + "".join(f"{path},\n" for path in named))
    review = prepare(folder, tmp_path, picks=picks)
    assert [review.paths[row] for row in review.queue] == [str(path) for path in named]
    other = tmp_path / "other"
    copytree(folder / "plain", other)
    picks.write_text(f"path,object\n{other}/red/0.png,\n")
    with pytest.raises(TransferError, match=r"no image of .* is in"):
        prepare(folder, tmp_path, picks=picks)


def test_another_file_is_not_appended_to(folder, tmp_path):
    file = tmp_path / "review/labels.csv"
    file.parent.mkdir()
    file.write_text("path,object\n")
    with pytest.raises(TransferError, match="is no file of corrections"):
        prepare(folder, tmp_path)
    assert file.read_text() == "path,object\n"


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(TransferError, match=r"pip install 'transfer-toolkit\[server\]'"):
        check_server()


def test_a_port_that_is_taken_is_one_line(review):
    pytest.importorskip("uvicorn", reason="needs the extra 'server'")
    with socket.socket() as taken:
        taken.bind((serve.HOST, 0))
        taken.listen()
        with pytest.raises(TransferError, match="0 takes a free one"):
            serve_review(review, taken.getsockname()[1])


def test_the_command_serves_on_this_machine_alone_until_it_is_interrupted(folder, tmp_path):
    pytest.importorskip("uvicorn", reason="needs the extra 'server'")
    command = [sys.executable, "-m", "transfer", "review", str(folder), "--backbone", "glyphnet", "--device", "cpu"]
    command += ["--class-name", "red"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            lines = []
            while not (lines and "http://" in lines[-1]):
                lines.append(process.stdout.readline())
                assert lines[-1], "".join(lines)
            address = re.search(r"http://127\.0\.0\.1:\d+/[\w-]{20,}/", lines[-1])[0]
            with urllib.request.urlopen(f"{address}state") as answer:  # at once
                assert answer.status == 200
            body = b'{"row": 0, "action": "exclude", "seen": 0}'
            request = urllib.request.Request(f"{address}decide", body, {"Content-Type": "application/json"})
            with urllib.request.urlopen(request) as answer:
                assert answer.status == 200
        finally:
            process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
        assert process.wait(30) in (0, 130)
    file = tmp_path / "runs" / f"{folder.name}-review" / "labels.csv"
    assert file.read_text().splitlines()[0] == ",".join(CORRECTION_HEADERS[0])
    assert "Traceback" not in rest
