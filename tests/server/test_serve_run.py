import json
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import pytest
from commands import run_command
from upload_files import encode

from transfer.config.serving import ServeConfig
from transfer.errors import TransferError
from transfer.server.serve_run import MIN_TOKEN, TOKEN_VARIABLE, choose_token, describe_access


def test_this_machine_needs_no_token_and_every_other_address_does(monkeypatch):
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    for host in ("127.0.0.1", "localhost", "::1", "127.0.0.2"):
        assert choose_token(ServeConfig(("a",), host=host)) == ""
    for config in (
        ServeConfig(("a",), host="0.0.0.0"),
        ServeConfig(("a",), host="studio"),
        ServeConfig(("a",), token=True),
    ):
        found = choose_token(config)
        assert len(found) >= 32
        assert choose_token(config) != found


def test_a_token_of_ones_own_must_be_long_and_plain(monkeypatch):
    config = ServeConfig(("a",), token=True)
    monkeypatch.setenv(TOKEN_VARIABLE, "x" * MIN_TOKEN)
    assert choose_token(config) == "x" * MIN_TOKEN
    for wrong in ("", "x" * (MIN_TOKEN - 1), "é" * 20, "x" * 20 + "\n", "x" * 20 + ";", "x" * 20 + " y"):
        monkeypatch.setenv(TOKEN_VARIABLE, wrong)
        with pytest.raises(TransferError, match=TOKEN_VARIABLE):
            choose_token(config)


def test_what_another_address_opens_is_said_in_plain_words():
    assert describe_access(ServeConfig(("a",)), 8000) == []
    text = " ".join(describe_access(ServeConfig(("a",), host="0.0.0.0"), 8000))
    for word in ("everyone", "8000", "training images", "corrections", "not encrypted"):
        assert word in text


def test_the_command_serves_until_it_is_stopped_and_answers_what_is_in_flight(run_folder, tmp_path):
    pytest.importorskip("uvicorn", reason="needs the extra 'server'")
    command = [sys.executable, "-m", "transfer", "serve", str(run_folder), "--port", "0", "--device", "cpu"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            lines = []
            while not (lines and "http://" in lines[-1]):
                lines.append(process.stdout.readline())
                assert lines[-1], "".join(lines)
            address = re.search(r"http://127\.0\.0\.1:\d+/", lines[-1])[0]
            for _ in range(200):
                try:
                    with urllib.request.urlopen(f"{address}health") as answer:
                        assert json.load(answer)["status"] == "ok"
                    break
                except urllib.error.URLError:
                    time.sleep(0.1)
            answers = []

            def send():
                request = urllib.request.Request(f"{address}predict", encode("red"))
                with urllib.request.urlopen(request) as answer:
                    answers.append(json.load(answer)["prediction"]["object"])

            request = urllib.request.Request(f"{address}corrections?label=mug", encode("red"))
            with urllib.request.urlopen(request) as answer:
                assert answer.status == 200
            threads = [threading.Thread(target=send) for _ in range(8)]
            for thread in threads:
                thread.start()
            while not answers and any(thread.is_alive() for thread in threads):
                time.sleep(0.001)
        finally:
            process.send_signal(signal.SIGTERM)
        rest = process.stdout.read()
        assert process.wait(60) == 0
        for thread in threads:
            thread.join(10)
    assert answers  # those that had a connection before the signal are answered, the others refused at once
    assert set(answers) == {"red"}
    assert "Traceback" not in rest
    assert f"next: transfer update {run_folder} --corrections" in rest


def test_a_missing_run_is_one_line(tmp_path):
    done = run_command(tmp_path, "serve", str(tmp_path / "none"), "--port", "0")
    assert done.returncode == 2
    assert "no run at" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
