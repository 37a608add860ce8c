"""Processes that write at the same time, are killed or run out of disk space leave only correct rows."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from numbered_rows import cached, digests, fill, open_rows_in, values

from transfer.disk_cache import DiskCache

ROOT = Path(__file__).parents[2]
HELPERS = ROOT / "tests" / "helpers"
POSIX = pytest.mark.skipif(os.name != "posix", reason="signals and limits of POSIX")

# Start of each process's script; its steps follow.
SCRIPT = """
import os, signal, sys
from pathlib import Path
import numpy as np
from numbered_rows import digests, open_rows_in, values
from transfer.disk_cache import cache as cache_module, row_cache as row_cache_module
from transfer.disk_cache import CacheWriteError, DiskCache

rows_cache = open_rows_in(Path(sys.argv[1]))
"""


def start(root: Path, steps: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT + steps, str(root)],
        env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{HELPERS}", "OMP_NUM_THREADS": "1"},
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

rows_cache.segment_rows = 4
with rows_cache.open_writer() as writer:
    writer.append(digests(range(6)), values(range(6)))
    MOMENT
    for i in range(6, 60):
        writer.append(digests([i]), values([i]))
"""
MOMENTS = {
    "between appends": ("kill()", 4),
    "in an append": ("row_cache_module.zlib.crc32 = kill", 4),
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
def test_a_killed_process_leaves_only_complete_and_correct_segments(tmp_path: Path, moment: str) -> None:
    how, complete = MOMENTS[moment]
    process = start(tmp_path, KILL.replace("MOMENT", how))
    _, error = process.communicate(timeout=120)
    assert process.returncode in (-signal.SIGKILL, -signal.SIGXFSZ), error
    assert cached(tmp_path, range(60)) == [True] * complete + [False] * (60 - complete)
    assert DiskCache(tmp_path).verify() == []
    fill(open_rows_in(tmp_path), range(complete, 60))
    assert cached(tmp_path, range(60)) == [True] * 60
    parts = list(tmp_path.rglob(".*.part"))
    assert len(parts) == (how != MOMENTS["after it has its name"][0] and moment != "much later")
    for part in parts:
        day_before = time.time() - 25 * 60 * 60
        os.utime(part, (day_before, day_before))
    open_rows_in(tmp_path)
    assert list(tmp_path.rglob(".*")) == []
    assert cached(tmp_path, range(60)) == [True] * 60


@POSIX
def test_random_kills(tmp_path: Path) -> None:
    """Another process sees only correct rows, while one writes and after it is killed."""
    rng = np.random.default_rng(0)
    for _ in range(4):
        missing = np.flatnonzero(~np.array(cached(tmp_path, range(400)))).tolist()
        process = start(
            tmp_path,
            "rows_cache.segment_rows = 7\nprint(flush=True)\n"
            f"with rows_cache.open_writer() as writer:\n    for i in {missing}:\n"
            "        writer.append(digests([i]), values([i]))\n",
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(rng.uniform(0, 0.2))
        cached(tmp_path, range(400))
        process.kill()
        process.communicate()
    fill(open_rows_in(tmp_path), range(400))
    assert cached(tmp_path, range(400)) == [True] * 400
    assert DiskCache(tmp_path).verify() == []


def test_two_processes_that_fill_at_once_both_succeed(tmp_path: Path) -> None:
    steps = """
rows_cache.segment_rows = 16
print(flush=True)
sys.stdin.readline()
order = np.random.default_rng(int(os.getpid())).permutation(150)
while not rows_cache.locate(digests(order)).found.all():
    missing = order[~rows_cache.locate(digests(order)).found]
    with rows_cache.open_writer() as writer:
        for i in missing[:40].tolist():
            writer.append(digests([i]), values([i]))
located = rows_cache.locate(digests(order))
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
    assert cached(tmp_path, range(150)) == [True] * 150
    assert DiskCache(tmp_path).verify() == []
    assert list(tmp_path.rglob(".*")) == []


def test_one_process_clears_while_another_fills(tmp_path: Path) -> None:
    """A process that loses a file gets CacheWriteError or a miss, and no other error."""
    steps = """
rows_cache.segment_rows = 4
print(flush=True)
for _ in range(30):
    try:
        with rows_cache.open_writer() as writer:
            for i in range(10):
                writer.append(digests([i]), values([i]))
    except CacheWriteError:
        pass
    located = rows_cache.locate(digests(range(10)))
    rows = np.flatnonzero(located.found)
    assert (located.take(rows) == values(range(10))[rows]).all()
"""
    process = start(tmp_path, steps)
    assert process.stdout is not None
    process.stdout.readline()
    while process.poll() is None:
        DiskCache(tmp_path).clear()
        DiskCache(tmp_path).list_entries()
        open_rows_in(tmp_path).locate(digests(range(10)))
        DiskCache(tmp_path, 400).make_room(100)
    finish(process)
    fill(open_rows_in(tmp_path), range(10))
    assert cached(tmp_path, range(10)) == [True] * 10


@POSIX
def test_located_rows_stay_readable_when_another_process_removes_their_file(tmp_path: Path) -> None:
    rows_cache = open_rows_in(tmp_path)
    fill(rows_cache, range(4))
    located = rows_cache.locate(digests(range(4)))
    finish(start(tmp_path, "assert DiskCache(Path(sys.argv[1])).clear() == (1, 4 * 76 + 32)"))
    assert np.array_equal(located.take(np.arange(4)), values(range(4)))
    assert not rows_cache.locate(digests(range(4))).found.any()
    fill(rows_cache, range(4))
    assert rows_cache.locate(digests(range(4))).found.all()


@POSIX
def test_a_full_disk_is_one_error_line_and_complete_segments_stay(tmp_path: Path) -> None:
    steps = """
import resource
rows_cache.segment_rows = 4
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    with rows_cache.open_writer() as writer:
        writer.append(digests(range(10)), values(range(10)))
        writer._cache.segment_rows = 100
        writer.append(digests(range(10, 60)), values(range(10, 60)))
except CacheWriteError as error:
    print(error)
"""
    (line,) = finish(start(tmp_path, steps)).splitlines()
    assert line.startswith(f"cannot write to {open_rows_in(tmp_path).folder}: File too large (free some space")
    assert cached(tmp_path, range(60)) == [True] * 8 + [False] * 52
    assert list(tmp_path.rglob(".*")) == []


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    steps = """
cache_module.MAX_SEGMENT_BYTES = 16 << 20
row_cache_module.MAX_MAPPED_BYTES = 4 << 20
rows_cache = DiskCache(Path(sys.argv[1])).open_rows("large", {}, (1 << 10,), "float32")
block = np.zeros((1 << 10, 1 << 10), "float32")

def peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) // 1024

def run(blocks):
    names = digests(range(blocks << 10))
    with rows_cache.open_writer(len(names)) as writer:
        for batch in names.reshape(blocks, -1):
            writer.append(batch, block)
    located = rows_cache.locate(names)
    assert located.found.all()
    for rows in np.random.default_rng(0).permutation(len(names)).reshape(-1, 8):
        located.take(rows)
    return peak()

print(run(4), run(40))
"""
    few, many = map(int, finish(start(tmp_path, steps)).split())
    assert many < few + 40  # MiB; 160 were written, located and read


def test_every_process_agrees_on_the_key(tmp_path: Path) -> None:
    finish(start(tmp_path, "with rows_cache.open_writer() as writer: writer.append(digests([1]), values([1]))"))
    assert cached(tmp_path, range(1, 2)) == [True]
