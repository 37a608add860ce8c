import subprocess
import sys

import torch

from transfer.backbones.engines.graph import export_stages
from transfer.backbones.engines.openvino_engine import OpenVinoEngine


def test_it_computes_what_torch_does_the_same_on_any_number_of_threads(check_rows):
    check_rows(OpenVinoEngine)


def test_an_output_outlives_the_next_call(check_output):
    check_output(OpenVinoEngine)


FIRST_CALLS = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import numpy as np

from transfer.backbones.engines.openvino_engine import OpenVinoEngine

engine, barrier = OpenVinoEngine(Path(sys.argv[1]).read_bytes(), 4), Barrier(4)
sys.setswitchinterval(1e-6)

def call(_):
    barrier.wait()
    return engine(np.ones((1, 3, 32, 32), np.float32))

with ThreadPoolExecutor(4) as pool:
    list(pool.map(call, range(4)))
"""


def test_the_first_calls_of_a_process_may_come_together(small, tmp_path):
    """OpenVINO's Python module blocked for ever in two of three processes."""
    file = tmp_path / "graph.onnx"
    file.write_bytes(export_stages(small(), 5, 0, torch.randn(1, 3, 32, 32))[0])
    for _ in range(2):
        subprocess.run([sys.executable, "-c", FIRST_CALLS, str(file)], check=True, timeout=120)


FREED_BEFORE_A_SIGNAL = """
import gc
import signal
import sys
from pathlib import Path

import numpy as np

from transfer.backbones.engines.openvino_engine import OpenVinoEngine

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job starts with it ignored
engines = [OpenVinoEngine(Path(sys.argv[1]).read_bytes(), 1) for _ in range(2)]
for _ in range(2):
    del engines[0]
    gc.collect()
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("caught")
"""


def test_a_signal_after_engines_were_freed_is_received(small, tmp_path):
    """It ended the process: the signal's stack had been freed with the first of two cores."""
    file = tmp_path / "graph.onnx"
    file.write_bytes(export_stages(small(), 5, 0, torch.randn(1, 3, 32, 32))[0])
    command = [sys.executable, "-c", FREED_BEFORE_A_SIGNAL, str(file)]
    assert subprocess.run(command, check=True, timeout=120, capture_output=True, text=True).stdout == "caught\n"
