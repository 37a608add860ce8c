"""Run commands and recipes in processes of their own, without the seconds that a start of each would take.

All are forked from one process that has imported the package. It has run nothing: a command finds what it would find
after a start. Without ``fork`` each is started anew.
"""

import atexit
import functools
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

IMPORTED_ONCE = ("transfer.training.train", "transfer.adaptation.adapt", "transfer.tuning.advise")
ROOT = Path(__file__).parents[2]
MAX_SECONDS = 300  # then a command that hangs is ended


def run_command(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run ``python -m transfer WORDS`` with the code of this tree, in `folder`."""
    return _run(folder, "", *words)


def run_script(folder: Path, script: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run ``python SCRIPT WORDS`` with the code of this tree, in `folder`."""
    return _run(folder, str(script), *words)


def _run(folder: Path, script: str, *words: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    if not hasattr(os, "fork"):
        argv = [sys.executable, *([script] if script else ["-m", "transfer"]), *words]
        return subprocess.run(argv, capture_output=True, text=True, env=environment, cwd=folder)
    with tempfile.TemporaryDirectory() as outputs:
        files = [str(Path(outputs, name)) for name in ("out", "err")]
        job = {"script": script, "words": words, "cwd": str(folder), "env": environment, "files": files}
        server = _start_server()
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(json.dumps(job) + "\n")
        server.stdin.flush()
        code = int(server.stdout.readline())
        return subprocess.CompletedProcess([script, *words], code, *(Path(file).read_text() for file in files))


@functools.cache
def _start_server() -> subprocess.Popen[str]:
    """Return the process that forks; it ends when its input does, with this one."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    argv = [sys.executable, __file__]
    return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT)


def _serve() -> None:
    from transfer.runtime.imports import import_quickly

    with import_quickly():
        for module in IMPORTED_ONCE:
            importlib.import_module(module)
    sys.path.pop(0)  # the folder of this file
    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            _become(json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


def _become(job: dict[str, Any]) -> None:
    """Be the command in this forked process, and end."""
    code: Any = 1
    signal.alarm(MAX_SECONDS)
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for descriptor, file in enumerate(job["files"], 1):
            os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
        os.environ.clear()
        os.environ.update(job["env"])
        os.chdir(job["cwd"])
        script = job["script"]
        sys.argv = [script or str(ROOT / "transfer" / "__main__.py"), *job["words"]]
        sys.path.insert(0, str(Path(script).parent) if script else job["cwd"])
        if script:
            runpy.run_path(script, run_name="__main__")
        else:
            runpy.run_module("transfer", run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve()
