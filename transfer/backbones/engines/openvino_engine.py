"""OpenVINO: a stream with one core for each thread that calls; all streams share the weights."""

import threading
from functools import cache
from typing import Any

import numpy as np

_FIRST_CALL = threading.Lock()


class OpenVinoEngine:
    """A graph with one input and one output; calls from up to `threads` threads run side by side.

    Parameters
    ----------
    graph : bytes
        An ONNX model of fixed shapes.
    threads : int
        Number of streams, each on one core. The result does not depend on it.
    """

    def __init__(self, graph: bytes, threads: int) -> None:
        core = _find_core()
        settings = {
            "INFERENCE_PRECISION_HINT": "f32",
            "NUM_STREAMS": str(threads),
            "INFERENCE_NUM_THREADS": str(threads),
            "ENABLE_CPU_PINNING": "NO",  # other processes may hold the first cores
        }
        self._compiled: Any = core.compile_model(core.read_model(graph), "CPU", settings)
        self._local = threading.local()
        # Its Python module initialises itself in the first call, and blocks for ever if two threads do so at once.
        with _FIRST_CALL:
            self(np.zeros(self._compiled.input(0).shape, np.float32))

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Return the output for contiguous `values` of the input's shape."""
        if not hasattr(self._local, "request"):
            self._local.request = self._compiled.create_infer_request()
        return self._local.request.infer([values], share_inputs=True)[0]


@cache
def _find_core() -> Any:
    """Return the one core of this process.

    Each core gives the process a stack for signals, and takes it back when it is freed. With two of them the first
    one's stack can be in use after it is gone: the next signal, such as Ctrl-C, would then end the process.
    """
    import openvino

    return openvino.Core()
