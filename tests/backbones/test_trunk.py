"""The frozen stages made ready to run: folded where only rounding changes, and blind to how images are batched."""

import itertools
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from transfer import backbones
from transfer.backbones import trunk as trunk_module
from transfer.backbones.backbone import Backbone
from transfer.backbones.engines.chunks import DEFAULT_CHUNK_IMAGES
from transfer.backbones.trunk import Trunk
from transfer.evaluation.predict import PREDICTED_AT_ONCE
from transfer.feature_cache import feed

NAMES = ["test_resnet", "test_efficientnet", "test_convnext", "test_nfnet", "mobilenetv3_small_050", "resnet18"]
NAMES += ["torchvision:squeezenet1_1", "torchvision:shufflenet_v2_x0_5", "densenet121", "efficientnet_b0.ra_in1k"]
STORE = Path(os.environ.get("TRANSFER_WEIGHTS") or Path(__file__).parents[3] / "shared" / "weights")


def pixels(n: int = 6, size: int = 32) -> Tensor:
    return torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def statistics_of_its_own(network: nn.Module) -> None:
    """Give every BatchNorm what training would: statistics, scales and shifts that are no identity."""
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in (
                (module.running_mean, -0.5, 0.5),
                (module.running_var, 0.5, 2.0),
                (module.weight, 0.5, 1.5),
                (module.bias, -0.5, 0.5),
            ):
                if tensor is not None:
                    tensor.data.uniform_(low, high, generator=generator)


def naive(backbone: Backbone, images: Tensor, cut: int) -> Tensor:
    with torch.no_grad():
        return backbone.trunk(backbone.preprocessing.normalise(images), cut)


def norms(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


@pytest.mark.parametrize("name", NAMES)
def test_every_cut_equals_the_backbone(small: Callable[..., Backbone], name: str) -> None:
    backbone = small(name, size=64)
    statistics_of_its_own(backbone.network)
    backbone.eval()
    x = pixels(size=64)
    for cut in range(1, len(backbone.stages) + 1):
        if backbone.can_cut(cut):
            got, expected = Trunk(backbone, cut)(x), naive(backbone, x, cut)
            assert got.dtype == torch.float32
            assert got.shape == (6, *backbone.shape(cut))
            assert float((got - expected).abs().max()) <= 1e-4 * float(expected.abs().max()), cut


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "mobilenetv3_small_050", "resnet18"])
def test_batchnorm_is_folded_below_the_cut_only_and_in_a_copy(small: Callable[..., Backbone], name: str) -> None:
    backbone = small(name)
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    whole = norms(backbone.network)
    for cut in (1, len(backbone.stages)):
        below = sum(
            isinstance(module, nn.BatchNorm2d) and backbone.stage_of(path) < cut
            for path, module in backbone.network.named_modules()
            if path in backbone._stage_of
        )
        assert below > 0
        assert norms(Trunk(backbone, cut)._backbone.network) == whole - below
    assert norms(backbone.network) == whole
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())


class Twice(nn.Module):
    """A convolution whose output is used beside its norm: folding would change what the sum gets."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Conv2d(4, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(x + self.norm(x)).mean((2, 3))


def test_norms_that_cannot_be_folded_stay(small: Callable[..., Backbone]) -> None:
    torch.manual_seed(0)
    network = Twice()
    statistics_of_its_own(network)
    backbone = Backbone("twice", network.eval(), small().preprocessing).eval()
    cut = len(backbone.stages)
    ready = Trunk(backbone, cut)
    assert norms(ready._backbone.network) == 1
    assert torch.allclose(ready(pixels()), naive(backbone, pixels(), cut), atol=1e-5)


def test_training_mode_and_gradients_do_not_matter(small: Callable[..., Backbone]) -> None:
    backbone = small()
    statistics_of_its_own(backbone.network)
    cut = len(backbone.stages)
    expected = Trunk(backbone.eval(), cut)(pixels())
    statistics = backbone.network.state_dict()
    got = Trunk(backbone.train(), cut)(pixels())
    assert torch.equal(got, expected)
    assert not got.requires_grad
    assert all(torch.equal(value, statistics[key]) for key, value in backbone.network.state_dict().items())
    with torch.inference_mode():
        inside = Trunk(backbone, cut)
    assert torch.equal(inside(pixels()), expected)  # made in inference mode, used outside


@pytest.mark.parametrize(
    ("name", "engine"),
    [
        ("test_resnet", "torch"),
        ("mobilenetv3_small_050", "torch"),
        ("torchvision:squeezenet1_1", "torch"),
        ("test_resnet", "onnxruntime"),
        ("test_resnet", "openvino"),
    ],
)
def test_going_on_from_a_lower_cut_changes_no_bit(small: Callable[..., Backbone], name: str, engine: str) -> None:
    backbone = small(name)
    statistics_of_its_own(backbone.network)
    backbone.engine = engine
    x, n = pixels(11), len(backbone.stages)
    possible = 0
    for start in range(1, n):
        lower = Trunk(backbone, start)(x)
        for cut in range(start + 1, n + 1):
            ready = Trunk(backbone, cut)
            if ready.can_continue(start):
                possible += 1
                assert torch.equal(ready.continue_from(lower, start), ready(x)), (start, cut)
    assert possible == n * (n - 1) / 2 or engine != "torch"
    assert possible


def test_images_may_pass_one_at_a_time(small: Callable[..., Backbone]) -> None:
    backbone = small("mobilenetv3_small_050")
    cut, x = len(backbone.stages), pixels(6)
    single, usual = Trunk(backbone, cut, chunk=1), Trunk(backbone, cut)
    sizes: list[int] = []
    replica = single._replica().network
    replica.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    assert torch.equal(torch.cat([single(image[None]) for image in x]), single(x))
    assert torch.allclose(single(x), usual(x), atol=1e-4)
    assert set(sizes) <= {1}


def test_an_image_depends_neither_on_its_batch_nor_on_the_cores(
    small: Callable[..., Backbone], monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = small("mobilenetv3_small_050")
    x = pixels(37)
    whole = Trunk(backbone, len(backbone.stages))(x)
    assert torch.equal(torch.cat([Trunk(backbone, len(backbone.stages))(some) for some in x.split(5)]), whole)
    for cores in (1, 3):
        trunk_module._start_threads.cache_clear()
        monkeypatch.setattr(trunk_module.distributed, "count_cores_per_process", lambda cores=cores: cores)
        assert torch.equal(Trunk(backbone, len(backbone.stages))(x), whole)
    trunk_module._start_threads.cache_clear()


def test_threads_do_not_disturb_each_other_at_a_cut(small: Callable[..., Backbone]) -> None:
    backbone = small("resnet18")
    x = pixels(64)
    for cut in (2, 3):
        assert torch.allclose(Trunk(backbone, cut)(x), naive(backbone.eval(), x, cut), atol=1e-4)


def test_the_caller_keeps_its_threads(small: Callable[..., Backbone]) -> None:
    torch.set_num_threads(2)
    try:
        Trunk(small(), 2)(pixels())
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_an_impossible_cut_is_an_error(small: Callable[..., Backbone]) -> None:
    with pytest.raises(ValueError, match="not between 0 and"):
        Trunk(small(), 99)


ENGINES = ("onnxruntime", "openvino", "compile")
splits = st.lists(st.integers(1, 4), min_size=1, max_size=6)


@pytest.mark.parametrize(
    ("name", "engine"),
    [
        *itertools.product(["resnet18", "mobilenetv3_small_050", "torchvision:shufflenet_v2_x0_5"], ENGINES[:2]),
        ("resnet18", "compile"),
        pytest.param("mobilenetv3_small_050", "compile", marks=pytest.mark.slow),  # a quarter of a minute each
        pytest.param("torchvision:shufflenet_v2_x0_5", "compile", marks=pytest.mark.slow),
    ],
)
def test_every_cut_on_an_engine_equals_the_backbone(small: Callable[..., Backbone], name: str, engine: str) -> None:
    backbone = small(name, size=64)
    statistics_of_its_own(backbone.network)
    backbone.eval()
    backbone.engine = engine
    x = pixels(size=64)
    for cut in filter(backbone.can_cut, range(1, len(backbone.stages) + 1)):
        ready, expected = Trunk(backbone, cut), naive(backbone, x, cut)
        got = ready(x)
        assert ready._compiled[(3, 64, 64)]
        assert got.dtype == torch.float32
        assert got.shape == (6, *backbone.shape(cut))
        assert float((got - expected).abs().max()) <= 1e-4 * float(expected.abs().max()), cut


@pytest.mark.parametrize("engine", ENGINES)
def test_on_an_engine_any_split_and_order_of_a_batch_gives_the_same_rows(
    small: Callable[..., Backbone], engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = small("mobilenetv3_small_050", size=64)
    backbone.engine = engine
    x, cut = pixels(11, size=64), len(backbone.stages)
    whole = Trunk(backbone, cut)(x)

    @settings(max_examples=10)
    @given(splits, st.permutations(range(11)))
    def test(sizes: list[int], order: list[int]) -> None:
        ready = Trunk(backbone, cut)
        parts = x[order].split([*sizes, 11 - sum(sizes)]) if sum(sizes) < 11 else (x[order],)
        assert torch.equal(torch.cat([ready(part) for part in parts]), whole[order])

    test()
    for cores in (1, 3):
        trunk_module._start_threads.cache_clear()
        monkeypatch.setattr(trunk_module.distributed, "count_cores_per_process", lambda cores=cores: cores)
        assert torch.equal(Trunk(backbone, cut)(x), whole)
    trunk_module._start_threads.cache_clear()


@pytest.mark.parametrize("engine", ENGINES)
def test_on_an_engine_images_of_another_size_pass_too(small: Callable[..., Backbone], engine: str) -> None:
    backbone = small("mobilenetv3_small_050", size=64)
    backbone.engine = engine
    ready = Trunk(backbone, len(backbone.stages))
    for size in (64, 96):
        expected = naive(backbone, pixels(size=size), ready.cut)
        assert torch.allclose(ready(pixels(size=size)), expected, atol=1e-4)


def test_a_network_that_no_engine_takes_runs_on_torch(small: Callable[..., Backbone]) -> None:
    class Bessel(Twice):
        def forward(self, x: Tensor) -> Tensor:
            return torch.special.bessel_j0(super().forward(x))

    backbone = Backbone("bessel", Bessel().eval(), small().preprocessing).eval()
    cut = len(backbone.stages)
    expected = Trunk(backbone, cut)(pixels())
    backbone.engine = "onnxruntime"
    ready = Trunk(backbone, cut)
    assert torch.equal(ready(pixels()), expected)
    assert ready._compiled == {backbone.preprocessing.input_size: None}


@pytest.mark.skipif(not STORE.is_dir(), reason="no pretrained weights in shared/weights beside the checkout")
@pytest.mark.parametrize("name", ["mobilenetv2_100", "torchvision:squeezenet1_1"])
def test_real_weights(name: str) -> None:
    backbone = backbones.load(name, store=STORE)
    x = pixels(5, 224)
    for cut, engine in itertools.product((2, len(backbone.stages)), ("torch", *ENGINES)):
        backbone.engine = engine
        expected = naive(backbone, x, cut)
        got = Trunk(backbone, cut)(x)
        assert float((got - expected).abs().max()) <= 2e-5 * float(expected.abs().max())
    assert norms(backbone.network) == (52 if name == "mobilenetv2_100" else 0)


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet"])
def test_on_any_device_features_are_those_of_the_network(
    small: Callable[..., Backbone], name: str, device: str
) -> None:
    """Whatever follows in a batch; on a GPU convolutions round to TensorFloat-32, 10 bits."""
    backbone = small(name, size=64)
    statistics_of_its_own(backbone.network)
    x, cut = pixels(7, 64), len(backbone.stages)
    expected = naive(backbone.eval(), x, cut)
    ready = Trunk(backbone.to(device), cut)
    whole = ready(x)
    assert whole.device.type == device
    tolerance = {"cpu": 1e-4, "cuda": 1e-2}[device]
    assert float((whole.cpu() - expected).abs().max()) <= tolerance * float(expected.abs().max())
    assert torch.equal(ready(x[:2].to(device)), whole[:2])


def test_on_a_gpu_no_image_is_computed_for_nothing() -> None:
    """Batches of the feed, of predictions and of the trunk have the same number of images: none is filled up."""
    assert feed._BATCH % DEFAULT_CHUNK_IMAGES == 0
    assert PREDICTED_AT_ONCE % DEFAULT_CHUNK_IMAGES == 0
