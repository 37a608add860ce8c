"""Images per second of frozen networks: ours, its torch path, ONNX Runtime, OpenVINO and timm's plain forward pass.

python tests/benchmarks/trunk_engines.py [--networks NAME ...] [--images 32] [--rounds 7] [--choice]

All sides take the same uint8 images and run in turns. ONNX Runtime and OpenVINO run the whole network as their guides
advise for throughput: one session with a thread for each core and batches of 8, and as many requests at a time as it
has streams. Weights are random, which changes no speed.
"""

import argparse
import io
import time
import warnings
from collections.abc import Callable
from statistics import median
from typing import Any

import machine
import numpy as np
import onnxruntime
import openvino
import torch
from torch import Tensor

from transfer.backbones.backbone import Backbone
from transfer.backbones.engines import ActivationRanges, choose_engine
from transfer.backbones.engines.graph import export_stages
from transfer.backbones.engines.quantise import measure_ranges, simplify
from transfer.backbones.trunk import Trunk
from transfer.backbones.weights import load
from transfer.runtime import distributed

NETWORKS = ("tf_efficientnet_lite0", "tf_efficientnet_lite2", "mobilenetv2_100", "torchvision:squeezenet1_1")
NETWORKS += ("resnet18", "resnet50", "regnety_016", "densenet121")
BATCH = 8
CORES = distributed.count_cores_per_process()


def export_network(backbone: Backbone) -> bytes:
    """Return the whole network as ONNX, for batches of any size."""
    file, options = io.BytesIO(), {"dynamo": False, "opset_version": 17, "input_names": ["x"], "output_names": ["y"]}
    export: Any = torch.onnx.export
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        example = torch.randn(2, *backbone.preprocessing.input_size)
        export(backbone.network, (example,), file, dynamic_axes={"x": {0: "n"}, "y": {0: "n"}}, **options)
    return file.getvalue()


def run_onnxruntime(graph: bytes, normalise: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Any]:
    """Return a function that computes features with one session on all cores."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = CORES
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return lambda images: np.concatenate(
        [session.run(None, {"x": normalise(batch).numpy()})[0] for batch in images.split(BATCH)]
    )


def run_openvino(graph: bytes, shape: tuple[int, ...], normalise: Callable[[Tensor], Tensor]) -> Callable:
    """Return a function that computes features with OpenVINO's own queue of requests."""
    core = openvino.Core()
    model = core.read_model(graph)
    model.reshape([1, *shape])
    compiled = core.compile_model(model, "CPU", {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": "f32"})
    compiled([np.zeros((1, *shape), np.float32)])  # its first call must be alone: see OpenVinoEngine
    queue = openvino.AsyncInferQueue(compiled)

    def run(images: Tensor) -> np.ndarray:
        found: list[np.ndarray] = [np.empty(0)] * len(images)
        queue.set_callback(lambda request, i: found.__setitem__(i, request.get_output_tensor().data.copy()))
        for i, image in enumerate(images.split(1)):
            queue.start_async([normalise(image).numpy()], i)
        queue.wait_all()
        return np.concatenate(found)

    return run


def run_plain(backbone: Backbone) -> Callable[[Tensor], Tensor]:
    """Return a function that computes features as a usual loop does."""
    network, normalise = backbone.network, backbone.preprocessing.normalise

    def run(images: Tensor) -> Tensor:
        torch.set_num_threads(CORES)
        with torch.inference_mode():
            return torch.cat([network(normalise(batch)) for batch in images.split(BATCH)])

    return run


def measure(name: str, count: int, rounds: int) -> list[str]:
    """Return a row of the table."""
    backbone = load(name, random_init=True)
    shape, cut = backbone.preprocessing.input_size, len(backbone.stages)
    graph, normalise = export_network(backbone), backbone.preprocessing.normalise
    sides: dict[str, Callable[[Tensor], Any]] = {}
    backbone.engine = "auto"
    engine = choose_engine("auto", backbone, torch.device("cpu"))
    sides["ours"] = Trunk(backbone, cut, store=False)
    backbone.engine = "torch"
    sides["torch folded"] = Trunk(backbone, cut)
    sides["onnxruntime"] = run_onnxruntime(graph, normalise)
    sides["openvino"] = run_openvino(graph, shape, normalise)
    sides["plain"] = run_plain(backbone)
    images = torch.randint(0, 256, (count, *shape), dtype=torch.uint8)
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for turn in range(1 + rounds):  # the first sets up
        for side, run in sides.items():
            start = time.perf_counter()
            run(images)
            seconds[side] += [time.perf_counter() - start] if turn else []
    rates = {side: count / median(found) for side, found in seconds.items()}
    best = max(rate for side, rate in rates.items() if side != "ours")
    ratios = f"{rates['ours'] / best:.2f}", f"{rates['ours'] / rates['torch folded']:.2f}"
    return [name, engine, *(f"{rate:.1f}" for rate in rates.values()), *ratios]


def compare_engines(name: str, count: int, rounds: int) -> list[str]:
    """Return a row of the table of ``--choice``: processor time of our trunk on each engine, against torch."""
    backbone = load(name, random_init=True)
    chosen = choose_engine("auto", backbone, torch.device("cpu"))
    images = torch.randint(0, 256, (count, *backbone.preprocessing.input_size), dtype=torch.uint8)
    normalised = [image.numpy() for image in backbone.preprocessing.normalise(images).split(1)]
    graph = simplify(export_stages(backbone, len(backbone.stages), 0, torch.from_numpy(normalised[0]))[0])
    backbone.calibration = ActivationRanges(measure_ranges(graph, normalised), count)  # noise has no effect on speed
    trunks: dict[str, Trunk] = {}
    for engine in ("torch", "onnxruntime", "openvino", "int8"):
        backbone.engine = engine
        trunks[engine] = Trunk(backbone, len(backbone.stages), store=False)
    seconds: dict[str, list[float]] = {engine: [] for engine in trunks}
    for turn in range(1 + rounds):
        for engine, trunk in trunks.items():
            start = time.process_time()
            trunk(images)
            seconds[engine] += [time.process_time() - start] if turn else []
    times = {engine: median(seconds["torch"]) / median(found) for engine, found in seconds.items()}
    other = next(rate for engine, rate in times.items() if engine not in ("torch", "int8", chosen))
    ratios = times["onnxruntime"], times["openvino"], times[chosen] / other, times["int8"] / times["onnxruntime"]
    return [name, chosen, *(f"{ratio:.2f}" for ratio in ratios)]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--choice", action="store_true", help="compare the engines in our trunk, by processor time")
    options = parser.parse_args()
    print(machine.describe() + f", onnxruntime {onnxruntime.__version__}, openvino {openvino.__version__}")
    head = ["network", "engine", "ours /s", "torch folded", "onnxruntime", "openvino", "plain", "of best", "of torch"]
    if options.choice:
        head = ["network", "engine of auto", "onnxruntime / torch", "openvino / torch", "chosen / other"]
        head.append("int8 / onnxruntime")
    run = compare_engines if options.choice else measure
    rows = [run(name, options.images, options.rounds) for name in options.networks]
    print(machine.format_table([head, *rows]))


if __name__ == "__main__":
    main()
