"""Processes that write at once, are killed or find the disk full leave rows that are right, and no others."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from transfer.disk_cache import Shelf, Store

ROOT = Path(__file__).parents[2]
WIDTH = 10
POSIX = pytest.mark.skipif(os.name != "posix", reason="signals and limits of POSIX")

# What each process does; `root` and the steps follow.
SCRIPT = """
import hashlib, os, signal, sys
from pathlib import Path
import numpy as np
from transfer.disk_cache import shelf as store_module
from transfer.disk_cache import CannotKeep, Store

def digests(numbers):
    return [hashlib.sha256(str(i).encode()).hexdigest() for i in numbers]

def values(numbers, width=10):
    return np.stack([np.full(width, i, "float32") + np.arange(width, dtype="float32") for i in numbers])

shelf = Store(Path(sys.argv[1])).shelf("trunk", {}, (10,), "float32")
"""


def digests(numbers: range) -> np.ndarray:
    return np.array([hashlib.sha256(str(i).encode()).hexdigest() for i in numbers])


def values(numbers: range) -> np.ndarray:
    return np.stack([np.full(WIDTH, i, "float32") + np.arange(WIDTH, dtype="float32") for i in numbers])


def new_shelf(root: Path) -> Shelf:
    """Return the shelf as another process would see it."""
    return Store(root).shelf("trunk", {}, (WIDTH,), "float32")


def fill(shelf: Shelf, numbers: range) -> None:
    with shelf.writing() as writer:
        writer.append(digests(numbers), values(numbers))


def kept(root: Path, numbers: range) -> list[bool]:
    """Return which rows are there; they are right."""
    located = new_shelf(root).locate(digests(numbers))
    rows = np.flatnonzero(located.have)
    assert np.array_equal(located.take(rows), values(numbers)[rows])
    return located.have.tolist()


def start(root: Path, steps: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT + steps, str(root)],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: "subprocess.Popen[str]") -> str:
    out, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    return out


KILL = """
def kill(*args, **how):
    os.kill(os.getpid(), signal.SIGKILL)

def after(function, calls=1):
    seen = []
    def then(*args, **how):
        seen.append(args)
        out = function(*args, **how)
        if len(seen) == calls:
            kill()
        return out
    return then

shelf.segment_rows = 4
with shelf.writing() as writer:
    writer.append(digests(range(6)), values(range(6)))
    MOMENT
    for i in range(6, 60):
        writer.append(digests([i]), values([i]))
"""
MOMENTS = {
    "between appends": ("kill()", 4),
    "in an append": ("store_module.zlib.crc32 = kill", 4),
    "within a write": (  # the system kills it in the middle of writing a row
        "import resource as r; signal.signal(signal.SIGXFSZ, signal.SIG_DFL); r.setrlimit(r.RLIMIT_FSIZE, (90, 90))",
        4,
    ),
    "before a flush": ("os.fsync = kill", 4),
    "after a flush": ("os.fsync = after(os.fsync)", 4),
    "before it has its name": ("Path.replace = kill", 4),
    "after it has its name": ("Path.replace = after(Path.replace)", 8),
    "much later": ("Path.replace = after(Path.replace, 5)", 24),
}


@POSIX
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_kill_leaves_nothing_wrong_and_keeps_what_was_complete(tmp_path: Path, moment: str) -> None:
    how, complete = MOMENTS[moment]
    process = start(tmp_path, KILL.replace("MOMENT", how))
    _, error = process.communicate(timeout=120)
    assert process.returncode in (-signal.SIGKILL, -signal.SIGXFSZ), error
    assert kept(tmp_path, range(60)) == [True] * complete + [False] * (60 - complete)
    assert Store(tmp_path).verify() == []
    fill(new_shelf(tmp_path), range(complete, 60))
    assert kept(tmp_path, range(60)) == [True] * 60
    parts = list(tmp_path.rglob(".*.part"))
    assert len(parts) == (how != MOMENTS["after it has its name"][0] and moment != "much later")
    for part in parts:
        day_before = time.time() - 25 * 60 * 60
        os.utime(part, (day_before, day_before))
    new_shelf(tmp_path)
    assert list(tmp_path.rglob(".*")) == []
    assert kept(tmp_path, range(60)) == [True] * 60


@POSIX
def test_random_kills(tmp_path: Path) -> None:
    """What another process sees while one writes, and after it is killed, is right."""
    rng = np.random.default_rng(0)
    for _ in range(4):
        missing = np.flatnonzero(~np.array(kept(tmp_path, range(400)))).tolist()
        process = start(
            tmp_path,
            f"shelf.segment_rows = 7\nprint(flush=True)\nwith shelf.writing() as writer:\n    for i in {missing}:\n"
            "        writer.append(digests([i]), values([i]))\n",
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(rng.uniform(0, 0.2))
        kept(tmp_path, range(400))
        process.kill()
        process.communicate()
    fill(new_shelf(tmp_path), range(400))
    assert kept(tmp_path, range(400)) == [True] * 400
    assert Store(tmp_path).verify() == []


def test_two_processes_that_fill_at_once_both_succeed(tmp_path: Path) -> None:
    steps = """
shelf.segment_rows = 16
print(flush=True)
sys.stdin.readline()
order = np.random.default_rng(int(os.getpid())).permutation(150)
while not shelf.locate(digests(order)).have.all():
    missing = order[~shelf.locate(digests(order)).have]
    with shelf.writing() as writer:
        for i in missing[:40].tolist():
            writer.append(digests([i]), values([i]))
located = shelf.locate(digests(order))
assert (located.take(np.arange(150)) == values(order)).all()
"""
    both = [start(tmp_path, steps) for _ in range(2)]
    for process in both:
        assert process.stdout is not None
        process.stdout.readline()
    for process in both:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in both:
        finish(process)
    assert kept(tmp_path, range(150)) == [True] * 150
    assert Store(tmp_path).verify() == []
    assert list(tmp_path.rglob(".*")) == []


def test_one_process_clears_while_another_fills(tmp_path: Path) -> None:
    """Whoever loses a file to the other is told so or misses; nobody fails otherwise."""
    steps = """
shelf.segment_rows = 4
print(flush=True)
for _ in range(30):
    try:
        with shelf.writing() as writer:
            for i in range(10):
                writer.append(digests([i]), values([i]))
    except CannotKeep:
        pass
    located = shelf.locate(digests(range(10)))
    rows = np.flatnonzero(located.have)
    assert (located.take(rows) == values(range(10))[rows]).all()
"""
    process = start(tmp_path, steps)
    assert process.stdout is not None
    process.stdout.readline()
    while process.poll() is None:
        Store(tmp_path).clear()
        Store(tmp_path).shelves()
        new_shelf(tmp_path).locate(digests(range(10)))
        Store(tmp_path, 400).make_room(100)
    finish(process)
    fill(new_shelf(tmp_path), range(10))
    assert kept(tmp_path, range(10)) == [True] * 10


@POSIX
def test_what_is_open_stays_readable_when_another_process_removes_it(tmp_path: Path) -> None:
    shelf = new_shelf(tmp_path)
    fill(shelf, range(4))
    located = shelf.locate(digests(range(4)))
    finish(start(tmp_path, "assert shelf.store.clear() == (1, 4 * 76 + 32)"))
    assert np.array_equal(located.take(np.arange(4)), values(range(4)))
    assert not shelf.locate(digests(range(4))).have.any()
    fill(shelf, range(4))
    assert shelf.locate(digests(range(4))).have.all()


@POSIX
def test_a_full_disk_is_one_line_and_what_was_complete_stays(tmp_path: Path) -> None:
    steps = """
import resource
shelf.segment_rows = 4
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    with shelf.writing() as writer:
        writer.append(digests(range(10)), values(range(10)))
        writer._shelf.segment_rows = 100
        writer.append(digests(range(10, 60)), values(range(10, 60)))
except CannotKeep as error:
    print(error)
"""
    (line,) = finish(start(tmp_path, steps)).splitlines()
    assert line.startswith(f"cannot write to {new_shelf(tmp_path).folder}: File too large (make space")
    assert kept(tmp_path, range(60)) == [True] * 8 + [False] * 52
    assert list(tmp_path.rglob(".*")) == []


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    steps = """
store_module.SEGMENT_BYTES = 16 << 20
store_module._MAPPED = 4 << 20
shelf = Store(Path(sys.argv[1])).shelf("large", {}, (1 << 10,), "float32")
block = np.zeros((1 << 10, 1 << 10), "float32")

def peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) // 1024

def run(blocks):
    names = np.array(digests(range(blocks << 10)))
    with shelf.writing(len(names)) as writer:
        for some in names.reshape(blocks, -1):
            writer.append(some, block)
    located = shelf.locate(names)
    assert located.have.all()
    for rows in np.random.default_rng(0).permutation(len(names)).reshape(-1, 8):
        located.take(rows)
    return peak()

print(run(4), run(40))
"""
    few, many = map(int, finish(start(tmp_path, steps)).split())
    assert many < few + 40  # MiB; 160 were written, located and read


def test_every_process_agrees_on_the_key(tmp_path: Path) -> None:
    finish(start(tmp_path, "with shelf.writing() as writer: writer.append(digests([1]), values([1]))"))
    assert kept(tmp_path, range(1, 2)) == [True]
