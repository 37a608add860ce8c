"""Quantisation beside a naive one: values rounded to grids one by one, then plain convolutions."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from transfer.backbones.backbone import Backbone
from transfer.backbones.engines.graph import export_stages
from transfer.backbones.engines.onnxruntime_engine import OnnxRuntimeEngine
from transfer.backbones.engines.quantise import FLOAT_CONVOLUTIONS, measure_ranges, quantise, simplify
from transfer.errors import TransferError
from transfer.runtime import distributed

onnx = pytest.importorskip("onnx")
SIZE = 24


class Chain(nn.Module):
    """Convolutions with ReLU, of which the fourth is the first with integers, and pooling."""

    def __init__(self, length: int = 4) -> None:
        super().__init__()
        widths = [3, 6, 8, 8, 12][: length + 1]
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 3, 1, 1) for a, b in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x).relu()
        return x.mean((2, 3))


def make(small, length: int = 4) -> tuple[Backbone, bytes]:
    torch.manual_seed(0)
    backbone = Backbone("chain", Chain(length).eval(), small("test_resnet", SIZE).preprocessing)
    graph, _ = export_stages(backbone, len(backbone.stages), 0, torch.randn(1, 3, SIZE, SIZE))
    return backbone, simplify(graph)


@pytest.fixture
def images() -> list[np.ndarray]:
    return list(torch.randn(9, 1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1)).numpy())


def activations(network: Chain, image: np.ndarray) -> list[Tensor]:
    x, found = torch.from_numpy(image), []
    with torch.no_grad():
        for layer in network.layers:
            x = layer(x).relu()
            found.append(x)
    return found


def relus(ranges: dict[str, tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the ranges after each ReLU, in order."""
    return [value for key, value in ranges.items() if "Relu" in key]


def test_a_range_is_the_mean_of_the_extremes_of_an_image(small, images, monkeypatch):
    backbone, graph = make(small)
    found = measure_ranges(graph, images)
    each = [activations(backbone.network, image) for image in images]
    expected = [
        (np.mean([float(a[i].min()) for a in each]), np.mean([float(a[i].max()) for a in each])) for i in range(4)
    ]
    assert np.allclose(relus(found), expected, rtol=1e-5)
    for cores in (1, 5):
        monkeypatch.setattr(distributed, "count_cores_per_process", lambda cores=cores: cores)
        assert measure_ranges(graph, images) == found


def test_the_output_is_that_of_naive_rounding(small, images):
    backbone, graph = make(small)
    ranges = measure_ranges(graph, images)
    engine = OnnxRuntimeEngine(quantise(graph, ranges), 1)
    before, after = (high for _, high in relus(ranges)[2:])
    layer = backbone.network.layers[3]
    weight = layer.weight.detach()
    scale = weight.abs().amax((1, 2, 3), keepdim=True) / 64  # 7 bits, per output channel
    rounded = (weight / scale).round() * scale

    def grid(values: Tensor, high: float) -> Tensor:
        return (values * 255 / high).round().clamp(0, 255) * high / 255

    for image in images:
        x = grid(activations(backbone.network, image)[2], before)
        with torch.no_grad():
            y = grid(torch.conv2d(x, rounded, layer.bias, padding=1).relu(), after).mean((2, 3))
        assert np.abs(engine(image) - y.numpy()).max() < after / 255  # less than a step
        float32 = activations(backbone.network, image)[3].mean((2, 3))
        assert not torch.allclose(y, float32, atol=1e-6)


def test_weights_are_integers_from_the_fourth_convolution_on(small, images):
    _, graph = make(small)
    model = onnx.load_model_from_string(quantise(graph, measure_ranges(graph, images)))
    made = {output: node.op_type for node in model.graph.node for output in node.output}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert [made.get(node.input[1]) == "DequantizeLinear" for node in convolutions] == [False] * 3 + [True]
    assert onnx.load_model_from_string(graph).graph.output[0].name == model.graph.output[0].name


def test_what_cannot_be_quantised_is_refused_in_a_line(small, images):
    _, graph = make(small, 3)
    with pytest.raises(TransferError, match="nothing to quantise: it has 3 convolutions, and the first 3 stay"):
        measure_ranges(graph, images)
    _, graph = make(small)
    ranges = measure_ranges(graph, images)
    missing = next(key for key in ranges if "Relu_2" in key)
    with pytest.raises(TransferError, match=f"1 of [0-9]+ tensors lack a range, such as {missing}"):
        quantise(graph, {key: value for key, value in ranges.items() if key != missing})


def count_convolutions(graph: bytes) -> int:
    return sum(node.op_type == "Conv" for node in onnx.load_model_from_string(graph).graph.node)


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "torchvision:shufflenet_v2_x0_5", "test_resnet"])
def test_ranges_of_the_whole_network_fit_any_cut(small, with_statistics, name):
    backbone = with_statistics(small(name, 64))
    inputs = torch.randn(4, 1, 3, 64, 64)
    graphs = {
        cut: simplify(export_stages(backbone, cut, 0, inputs[0])[0])
        for cut in range(1, len(backbone.stages) + 1)
        if backbone.can_cut(cut)
    }
    ranges = measure_ranges(graphs[len(backbone.stages)], inputs.numpy())
    for cut, graph in graphs.items():
        if count_convolutions(graph) <= FLOAT_CONVOLUTIONS:
            continue
        quantised = quantise(graph, ranges)
        float32, int8 = (OnnxRuntimeEngine(each, 1)(inputs[0].numpy()) for each in (graph, quantised))
        assert np.isfinite(int8).all()
        assert np.linalg.norm(int8 - float32) < 0.5 * np.linalg.norm(float32), cut
