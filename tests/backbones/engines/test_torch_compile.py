"""torch.compile, against the network itself."""

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn

from transfer.backbones.backbone import Backbone
from transfer.backbones.engines import compiled, torch_compile
from transfer.backbones.engines.compiled import MAX_ENGINE_ERROR, StagesKey, compile_stages, is_compiled
from transfer.backbones.engines.torch_compile import COMPILE, compile_with_torch, explain
from transfer.backbones.trunk import Trunk


@pytest.fixture(autouse=True)
def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each test find out by itself what compiles."""
    monkeypatch.setattr(compiled, "_verdicts", {})
    monkeypatch.setattr(compiled, "_latest", {})


def key_of(backbone: Backbone, cut: int | None = None) -> StagesKey:
    return StagesKey.of(backbone, COMPILE, cut or len(backbone.stages), 0, backbone.preprocessing.input_size)


@pytest.mark.parametrize("threads", [1, 3])
def test_it_computes_what_the_network_computes(small: Callable[..., Backbone], device: str, threads: int) -> None:
    backbone = small().to(device).eval()
    for cut in (2, len(backbone.stages)):
        run, error = compile_with_torch(backbone, cut, 0, (4, 3, 32, 32))
        assert error <= MAX_ENGINE_ERROR
        x = torch.randn(6, 4, 3, 32, 32, generator=torch.Generator().manual_seed(cut)).to(device)
        with torch.no_grad():
            expected = torch.stack([backbone.trunk(part, cut) for part in x])
        with ThreadPoolExecutor(1 if device == "cuda" else threads) as pool:
            found = torch.stack(list(pool.map(run, x)))
        tolerance = {"cpu": 1e-4, "cuda": 1e-2}[device]  # a GPU rounds to TensorFloat-32
        assert float((found - expected).abs().max()) <= tolerance * float(expected.abs().max())


def test_an_output_is_not_overwritten_by_the_next(small: Callable[..., Backbone], device: str) -> None:
    backbone = small().to(device).eval()
    run, _ = compile_with_torch(backbone, 1, 0, (2, 3, 32, 32))
    first = run(torch.ones(2, 3, 32, 32, device=device))
    before = first.clone()
    run(torch.zeros(2, 3, 32, 32, device=device))
    assert torch.equal(first, before)


def test_nothing_is_compiled_for_the_last_images_of_a_batch(small: Callable[..., Backbone]) -> None:
    """Nor once more for the trunk, or for gradients that somebody has switched on or off."""
    from torch._dynamo.utils import counters

    backbone = small().eval()
    backbone.engine = COMPILE
    counters.clear()
    assert is_compiled(backbone, key_of(backbone))
    ready = Trunk(backbone, len(backbone.stages))
    images = torch.randint(0, 256, (11, 3, 32, 32), dtype=torch.uint8)
    whole = ready(images)
    with torch.inference_mode():
        parts = [ready(images[i : i + 5]) for i in (0, 5, 10)]
    assert torch.equal(torch.cat(parts), whole)
    assert counters["stats"]["unique_graphs"] == 1


def test_the_key_has_the_number_of_images(small: Callable[..., Backbone]) -> None:
    backbone = small()
    shape = backbone.preprocessing.input_size
    keys = [StagesKey.of(backbone, COMPILE, 2, 0, shape, chunk) for chunk in (None, 1, 4)]
    assert [key.images for key in keys] == [4, 1, 4]
    assert len({key.digest for key in keys}) == 2
    assert StagesKey.of(backbone, "onnxruntime", 2, 0, shape, 4).images == 1


def test_a_large_error_is_remembered_on_disk(
    small: Callable[..., Backbone], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    backbone, calls = small(seed=99), []  # no other test must find this on disk

    def compile_badly(*given: object) -> tuple[Callable[[Tensor], Tensor], float]:
        calls.append(given)
        return lambda x: x, 0.5

    monkeypatch.setattr(compiled, "compile_with_torch", compile_badly)
    with caplog.at_level(logging.INFO):
        assert compile_stages(backbone, key_of(backbone)) is None
    assert caplog.messages == [
        "test_resnet runs on torch, not on compile: its output differs by 0.5 of the largest value"
    ]
    compiled._verdicts.clear()
    assert not is_compiled(backbone, key_of(backbone))
    assert len(calls) == 1


def test_without_a_compiler_torch_runs_the_network(
    small: Callable[..., Backbone], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """This time: it may be installed for the next."""
    backbone = small()
    expected = Trunk(backbone, 2)(torch.ones(3, 3, 32, 32, dtype=torch.uint8))
    backbone.engine = COMPILE

    def fail(*given: object, **options: object) -> None:
        raise RuntimeError("\n No working C++ compiler found\n and so on")

    monkeypatch.setattr(torch_compile.torch, "compile", fail)
    with caplog.at_level(logging.INFO):
        found = Trunk(backbone, 2)(torch.ones(3, 3, 32, 32, dtype=torch.uint8))
    assert torch.equal(found, expected)
    assert caplog.messages == ["test_resnet runs on torch, not on compile: No working C++ compiler found"]
    assert not key_of(backbone, 2).file.with_suffix(".json").exists()


def test_the_cause_of_a_failure_is_told() -> None:
    class BackendCompilerFailed(RuntimeError):
        inner_exception = ValueError("the cause\nin two lines")

    assert explain(BackendCompilerFailed("backend='inductor' raised:\n")) == "the cause"
    assert explain(RuntimeError("plain")) == "plain"
    assert explain(KeyError()) == "KeyError"


def test_weights_and_modes_of_the_network_stay_as_they_are(small: Callable[..., Backbone]) -> None:
    backbone = small().train()
    before = {name: tensor.clone() for name, tensor in backbone.network.state_dict().items()}
    compile_with_torch(backbone, 1, 0, (1, 3, 32, 32))
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.network.state_dict().items())
    assert all(module.training for module in backbone.network.modules() if isinstance(module, nn.BatchNorm2d))
    assert all(parameter.requires_grad for parameter in backbone.parameters())
