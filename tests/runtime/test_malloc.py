"""Memory that steps free: kept while they run, given back afterwards, and let alone where a user has settled it."""

import json
import mmap
import os
import platform
import subprocess
import sys

import pytest

from transfer.runtime.malloc import USER_VARIABLES, keep_freed_memory

PAGE = mmap.PAGESIZE
SIZES = [40 * 2**20, 64 * 2**20]  # bytes that each step takes and frees; from 32 MiB on, glibc never keeps a block
STEP = sum(SIZES)

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left as they are")

SCRIPT = f"""
import contextlib, ctypes, json, resource, sys
from transfer.runtime.malloc import keep_freed_memory

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]

def step():
    for block in [ctypes.memset(libc.malloc(ctypes.c_size_t(size)), 1, size) for size in {SIZES}]:
        libc.free(block)

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * {PAGE}

out = {{"before": resident()}}
with keep_freed_memory() if sys.argv[1] == "kept" else contextlib.nullcontext():
    step()
    began = faults()
    for _ in range(5):
        with keep_freed_memory() if sys.argv[1] == "kept" else contextlib.nullcontext():
            step()
    out["pages a step"] = (faults() - began) / 5
    out["within"] = resident()
out["after"] = resident()
began = faults()
step()
out["pages afterwards"] = faults() - began
print(json.dumps(out))
"""


def measured(how: str, **variables: str) -> dict[str, float]:
    """Return what the script says, run in an environment that has of :data:`SAID` only `variables`."""
    clean = {name: value for name, value in os.environ.items() if name not in USER_VARIABLES}
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT, how], env=clean | variables, capture_output=True, text=True, check=True
    )
    return json.loads(ran.stdout)


def test_a_step_takes_what_the_one_before_freed() -> None:
    plain, ours = measured("plain"), measured("kept")
    assert plain["pages a step"] > 0.5 * STEP / PAGE
    assert ours["pages a step"] < 0.02 * STEP / PAGE


def test_afterwards_the_system_has_it_back() -> None:
    ours = measured("kept")
    assert ours["within"] - ours["before"] > 0.9 * STEP
    assert ours["after"] - ours["before"] < 0.1 * STEP
    assert ours["pages afterwards"] > 0.5 * STEP / PAGE


@pytest.mark.parametrize("name", USER_VARIABLES)
def test_what_the_environment_says_stands(name: str) -> None:
    value = "glibc.malloc.mmap_threshold=131072" if name == "GLIBC_TUNABLES" else "131072"
    assert measured("kept", **{name: value})["pages a step"] > 0.5 * STEP / PAGE


def test_an_error_within_goes_on_its_way() -> None:
    with pytest.raises(ValueError, match="mine"), keep_freed_memory():
        raise ValueError("mine")


def test_another_c_library_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    from transfer.runtime import malloc

    def refused(name: None) -> None:
        raise AssertionError("no other library is looked into")

    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(malloc.ctypes, "CDLL", refused)
    malloc._glibc.cache_clear()
    try:
        with keep_freed_memory():
            pass
    finally:
        monkeypatch.undo()
        malloc._glibc.cache_clear()
