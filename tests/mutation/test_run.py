"""A mutation run over a small module with a doctest: killed, by time too, surviving and equivalent mutants."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULE = """LIMIT = 3
OTHER = 5

def down(n):
    '''
    >>> down(3)
    0
    '''
    while n:
        n -= 1
    return n
"""
TESTS = """import tiny

def test_down():
    tiny.down(5)
"""
TABLE = """preload = []
[modules]
"tiny.py" = []
[[equivalent]]
module = "tiny.py"
line = "LIMIT = 3"
change = "3 -> 4"
reason = "nothing reads it"
"""


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A project of one module."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_tiny.py").write_text(TESTS)
    (tmp_path / "tiny.py").write_text(MODULE)
    (tmp_path / "table.toml").write_text(TABLE)
    return tmp_path


def run(tiny: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.mutation", "--root", str(tiny), "--table", str(tiny / "table.toml")]
    return subprocess.run([*command, "--seconds", "1", *options], capture_output=True, text=True, cwd=ROOT)


def test_killed_by_a_test_and_by_time_surviving_and_equivalent(tiny: Path) -> None:
    done = run(tiny)
    assert "survives: tiny.py:2: 5 -> 6\n" in done.stdout
    assert done.stdout.count("survives") == 1
    # Killed: the loop does not run, its step is 2 (down to -1, on and on), nothing is returned; += is stopped too.
    assert "all: 6 mutants, 2 killed, 2 by time, 1 equivalent, 1 survive: 80.0% killed" in done.stdout
    assert done.returncode == 1  # 0.8 is below 0.9
    assert done.stderr == ""  # no progress bar without a terminal
    assert sorted(path.name for path in tiny.iterdir() if path.name != "__pycache__") == [
        "table.toml",
        "tests",
        "tiny.py",
    ]


def test_a_sample_of_the_mutants_of_some_lines(tiny: Path) -> None:
    done = run(tiny, "--sample", "1", "--lines", "return")
    assert "all: 1 mutants, 1 killed, 0 by time, 0 equivalent, 0 survive: 100.0% killed" in done.stdout
    assert done.returncode == 0


def test_tests_that_fail_without_a_fault_end_the_run(tiny: Path) -> None:
    (tiny / "tests" / "test_tiny.py").write_text(TESTS + "    assert tiny.OTHER == 6\n")
    done = run(tiny, "--sample", "1")
    assert done.returncode != 0
    assert "the tests fail without a fault (exit code 1)" in done.stderr
