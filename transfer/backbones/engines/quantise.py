"""A network in ONNX with 8-bit integers: weights with a scale per output channel, activations with one per tensor.

Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", CVPR 2018.
"""

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from transfer.errors import TransferError
from transfer.runtime import distributed

QUANTISATION_VERSION = 1  # bump when quantised graphs change; part of the cache key
FLOAT_CONVOLUTIONS = 3  # the first ones stay float32: the squared error of the features falls by two fifths
CLIPPING = ("Clip", "Relu")
Ranges = Mapping[str, tuple[float, float]]
"""The least and the largest value of each tensor, by the node that computes it, or by the name of an input."""


def measure_ranges(content: bytes, inputs: Iterable[np.ndarray]) -> dict[str, tuple[float, float]]:
    """Return the ranges that all float32 tensors of an ONNX model have for `inputs`.

    A range is the mean over inputs of the least and the largest value: the few larger values are clipped, which loses
    less than a coarser scale. It depends on the order of the inputs in the last digits alone, and not on the number of
    cores.

    Parameters
    ----------
    content : bytes
        A model with one input.
    inputs : iterable of np.ndarray
        Each (1, ...).

    Raises
    ------
    TransferError
        There is no convolution to quantise.
    """
    import onnx
    import onnxruntime

    model = _read_model(content)
    _list_convolutions(model.graph)
    tensors = _list_tensors(model.graph, model.graph.node)
    for number, tensor in enumerate(tensors.values()):
        for operation in ("ReduceMin", "ReduceMax"):
            output = f"{operation} {number}"
            model.graph.node.append(onnx.helper.make_node(operation, [tensor], [output], keepdims=0))
            model.graph.output.append(onnx.helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, []))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session: Any = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    name, wanted = session.get_inputs()[0].name, [output.name for output in model.graph.output[-2 * len(tensors) :]]
    cores = distributed.count_cores_per_process()
    found: list[Any] = []
    remaining = iter(inputs)
    with ThreadPoolExecutor(cores) as pool:
        while group := list(islice(remaining, 4 * cores)):  # few in memory at a time
            found += pool.map(lambda values: session.run(wanted, {name: values}), group)
    means = np.mean(np.array(found, np.float64), axis=0).astype(np.float32).reshape(-1, 2).tolist()
    return {key: (low, high) for key, (low, high) in zip(tensors, means, strict=True)}


def quantise(content: bytes, ranges: Ranges) -> bytes:
    """Return the quantised ONNX model, with activations in `ranges`.

    The first convolutions, and what follows the last one, stay float32. Most weights have 7 bits: with 8, the matrix
    products of x86 processors without VNNI instructions overflow.

    Raises
    ------
    TransferError
        There is no convolution to quantise, or a tensor has no range.
    """
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
    from onnxruntime.quantization.registry import QDQRegistry

    model = _read_model(content)
    convolutions = _list_convolutions(model.graph)
    excluded = [node.name for node in _list_float_nodes(model.graph, convolutions)]
    tensors = _list_tensors(model.graph, [node for node in model.graph.node if node.name not in excluded])
    if missing := sorted(tensors.keys() - ranges.keys()):
        raise TransferError(
            f"its calibration does not fit: {len(missing)} of {len(tensors)} tensors lack a range, such as {missing[0]}"
        )
    data = {
        tensor: TensorData(lowest=np.array(low, np.float32), highest=np.array(high, np.float32))
        for tensor, (low, high) in ((tensor, ranges[key]) for key, tensor in tensors.items())
    }
    whole = {"quant_type": QuantType.QInt8, "axis": 0, "reduce_range": False}
    quantizer = QDQQuantizer(
        model,
        per_channel=True,
        reduce_range=True,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, data),
        nodes_to_quantize=[],
        nodes_to_exclude=excluded,
        op_types_to_quantize=list(QDQRegistry),
        extra_options={
            "TensorQuantOverrides": {name: [whole] for name in _find_depthwise_weights(model.graph, convolutions)}
        },
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    return quantizer.model.model.SerializeToString()


def simplify(content: bytes) -> bytes:
    """Return an ONNX model with constants computed and BatchNorm folded, which quantisation starts from."""
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(Path(folder, "simple.onnx"))
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        return Path(options.optimized_model_filepath).read_bytes()


def _read_model(content: bytes) -> Any:
    """Return the model with the shapes of all tensors; nodes without a name get that of their output."""
    import onnx

    model = onnx.shape_inference.infer_shapes(onnx.load_model_from_string(content))
    for node in model.graph.node:
        node.name = node.name or node.output[0]
    return model


def _list_convolutions(graph: Any) -> list[Any]:
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    if len(convolutions) <= FLOAT_CONVOLUTIONS:
        raise TransferError(
            f"nothing to quantise: it has {len(convolutions)} convolutions, and the first {FLOAT_CONVOLUTIONS} stay "
            "float32"
        )
    return convolutions


def _list_float_nodes(graph: Any, convolutions: list[Any]) -> list[Any]:
    """Return the nodes that stay float32: the first convolutions, pooling and heads.

    Those are the nodes whose output no convolution depends on, but for clipping, which convolutions include.
    """
    needed = {name for node in convolutions for name in node.input}
    heads = []
    for node in reversed(graph.node):  # in topological order
        if needed.intersection(node.output):
            needed.update(node.input)
        elif node.op_type not in CLIPPING and node.op_type != "Conv":
            heads.append(node)
    return [*convolutions[:FLOAT_CONVOLUTIONS], *heads]


def _list_tensors(graph: Any, nodes: Iterable[Any]) -> dict[str, str]:
    """Return the names of the float32 tensors that `nodes` read or write, by the key of their range.

    The key is the name of the node, which a graph of fewer stages shares, where that of the tensor may differ.
    """
    import onnx

    values = (*graph.value_info, *graph.input, *graph.output)
    floats = {value.name for value in values if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}
    floats -= {weight.name for weight in graph.initializer}
    used = floats.intersection(name for node in nodes for name in (*node.input, *node.output))
    return dict(_iterate_tensors(graph, used))


def _iterate_tensors(graph: Any, used: set[str]) -> Iterator[tuple[str, str]]:
    for value in graph.input:
        if value.name in used:
            yield value.name, value.name
    for node in graph.node:
        for number, name in enumerate(node.output):
            if name in used:
                yield f"{node.name}:{number}" if number else node.name, name


def _find_depthwise_weights(graph: Any, convolutions: list[Any]) -> list[str]:
    """Return the names of the weights of depthwise convolutions, which no processor computes as a matrix product."""
    shapes = {weight.name: tuple(weight.dims) for weight in graph.initializer}
    weights = [node.input[1] for node in convolutions[FLOAT_CONVOLUTIONS:]]
    return [name for name in weights if name in shapes and shapes[name][1] == 1 < shapes[name][0]]
