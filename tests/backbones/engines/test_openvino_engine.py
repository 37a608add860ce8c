import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from transfer.backbones.engines.graph import export_stages
from transfer.backbones.engines.openvino_engine import OpenVinoEngine


def test_it_computes_what_torch_does_the_same_on_any_number_of_threads(small, with_statistics):
    backbone = with_statistics(small("mobilenetv3_small_050", 64))
    images = torch.randn(12, 3, 64, 64)
    cut = len(backbone.stages)
    with torch.no_grad():
        expected = backbone.trunk(images, cut).numpy()
    graph, _ = export_stages(backbone, cut, 0, images[:1])
    found = []
    for threads in (1, 2, 5):
        engine = OpenVinoEngine(graph, threads)
        with ThreadPoolExecutor(threads) as pool:
            found.append(np.concatenate(list(pool.map(engine, [image[None].numpy() for image in images]))))
    assert np.abs(found[0] - expected).max() <= 1e-5 * np.abs(expected).max()
    assert all(np.array_equal(found[0], other) for other in found)


def test_an_output_outlives_the_next_call(small):
    graph, _ = export_stages(small(), 3, 0, torch.randn(1, 3, 32, 32))
    engine = OpenVinoEngine(graph, 1)
    first = engine(np.ones((1, 3, 32, 32), np.float32))
    held = first.copy()
    engine(np.zeros((1, 3, 32, 32), np.float32))
    assert np.array_equal(first, held)


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
