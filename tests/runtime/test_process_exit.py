import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

START = """
import atexit, sys, threading, time
from transfer.runtime.process_exit import exit_at_once
class Loud:
    def __del__(self):
        print("torn down")
loud = Loud()
"""


def run(code: str) -> subprocess.CompletedProcess:
    text = START + textwrap.dedent(code)
    return subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=60)


def test_it_exits_with_the_code_after_handlers_and_threads_and_flushes():
    found = run(
        """
        def work():
            atexit.register(print, "handler")
            threading.Thread(target=lambda: (time.sleep(0.3), print("thread"))).start()
            sys.stderr.write("error ")
            sys.stdout.write("output ")
            return 3
        exit_at_once(work)
        """
    )
    assert (found.returncode, found.stdout, found.stderr) == (3, "output thread\nhandler\n", "error ")


def test_an_exception_ends_as_usual():
    found = run("exit_at_once(lambda: 1 // 0)")
    assert found.returncode == 1
    assert found.stdout == "torn down\n"
    assert found.stderr.endswith("ZeroDivisionError: integer division or modulo by zero\n")


def test_an_exit_within_has_its_own_code():
    assert run("exit_at_once(lambda: sys.exit(5))").returncode == 5


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_stream_that_cannot_be_flushed_ends_as_usual():
    codes = []
    for end in ("exit_at_once(lambda: print('x') or 0)", "print('x'); raise SystemExit(0)"):
        with open("/dev/full", "w") as full:
            command = [sys.executable, "-c", START + end]
            codes.append(subprocess.run(command, stdout=full, stderr=subprocess.PIPE, timeout=60).returncode)
    assert codes[0] == codes[1] != 0
