"""ONNX Runtime: one session for all threads, which computes each call on the thread of its caller."""

from typing import Any

import numpy as np

ERRORS_ONLY = 3  # its level of log lines


class OnnxRuntimeEngine:
    """A graph with one input and one output; calls from several threads run side by side.

    Parameters
    ----------
    graph : bytes
        An ONNX model of fixed shapes.
    threads : int
        Number of threads that call; of no importance to ONNX Runtime.
    """

    def __init__(self, graph: bytes, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = ERRORS_ONLY
        self._session: Any = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Return the output for contiguous `values` of the input's shape."""
        return self._session.run(None, {self._input: values})[0]
