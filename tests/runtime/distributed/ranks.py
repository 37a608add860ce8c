"""Runs commands of `transfer` in several processes each, all forked from one that has imported everything already.

python ranks.py FOLDER reads FOLDER/jobs.json, a list of {"name", "world", "args"[, "env"][, "kill"]}, and writes
FOLDER/NAME.json with exit codes, outputs and seconds. With "kill" [rank, text] that process is killed as soon as the
first has printed `text`. With "check" in place of "args" each calls that function of checks.py.
"""

import importlib
import json
import os
import signal
import socket
import sys
import time
import traceback
from pathlib import Path

import torch
from torch.nn.parallel import DistributedDataParallel  # noqa: F401, as below: imported once for all

from transfer.cli.main import main
from transfer.runtime import distributed


def free_port() -> int:
    with socket.socket() as some:
        some.bind(("127.0.0.1", 0))
        return some.getsockname()[1]


def become(number: int, world: int, port: int, out: Path, job: dict) -> None:
    """Be process `number`, in this forked one, and end."""
    code = 99
    try:
        for descriptor, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(out.with_suffix(f".{number}.{name}"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
        if world > 1:
            place = {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
            os.environ |= {name: str(value) for name, value in place.items()}
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        os.environ |= job.get("env", {})
        if "check" in job:
            with distributed.join_process_group():
                getattr(importlib.import_module("checks"), job["check"])(Path(job["folder"]))
            code = 0
        else:
            code = main(job["args"])
    except SystemExit as end:
        code = end.code
    except Exception:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def run(job: dict, folder: Path) -> None:
    began, world, out = time.monotonic(), job["world"], folder / job["name"]
    port, pids = free_port(), []
    for number in range(world):
        pids.append(os.fork())
        if not pids[-1]:
            become(number, world, port, out, job)
    if job.get("kill"):
        number, text = job["kill"]
        told = out.with_suffix(".0.out")
        while not (told.exists() and text in told.read_text()):
            time.sleep(0.01)
        os.kill(pids[number], signal.SIGKILL)
        began = time.monotonic()
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    texts = {end: [out.with_suffix(f".{n}.{end}").read_text() for n in range(world)] for end in ("out", "err")}
    record = {"codes": codes, "seconds": time.monotonic() - began} | texts
    (folder / f"{job['name']}.json").write_text(json.dumps(record))


IMPORTED_ONCE = ("transfer.training.train", "transfer.adaptation.adapt", "transfer.report.run_page", "checks")

if __name__ == "__main__":
    for module in IMPORTED_ONCE:
        importlib.import_module(module)
    torch.set_num_threads(1)
    where = Path(sys.argv[1])
    for some in json.loads((where / "jobs.json").read_text()):
        run(some, where)
