"""Compiled stages: exported once, checked against torch, and never trusted where the file or the network is bad."""

import json
import logging
from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor, nn

from transfer.backbones.backbone import Backbone
from transfer.backbones.engines import compiled
from transfer.backbones.engines.compiled import ENGINES, StagesKey, compile_stages, is_compiled
from transfer.backbones.variants import AllStagesBackbone

SHAPE = (3, 32, 32)


def key_of(backbone: Backbone, engine: str = "onnxruntime", cut: int | None = None) -> StagesKey:
    return StagesKey.of(backbone, engine, cut or len(backbone.stages), 0, SHAPE)


@pytest.fixture
def exports(monkeypatch):
    """Count the exports."""
    count, export = [], compiled.export_stages

    def counted(*arguments):
        count.append(1)
        return export(*arguments)

    monkeypatch.setattr(compiled, "export_stages", counted)
    return count


@pytest.mark.parametrize("engine", ENGINES)
def test_a_network_is_exported_once_and_then_read(small, own_cache, exports, engine, monkeypatch):
    backbone, x = small(), torch.randn(1, *SHAPE)
    key = key_of(backbone, engine)
    first = compile_stages(backbone, key)(x)
    assert is_compiled(backbone, key)
    monkeypatch.setattr(compiled, "_verdicts", {})  # as another process
    assert is_compiled(backbone, key)
    assert torch.equal(compile_stages(backbone, key)(x), first)
    assert len(exports) == 1
    with torch.no_grad():
        assert torch.allclose(first, backbone(x), atol=1e-5)


def test_the_key_covers_all_that_the_output_depends_on(small, monkeypatch):
    backbone = small()
    keys = {key_of(backbone)}
    assert key_of(small()) in keys

    def is_new(backbone: Backbone, **options) -> bool:
        key = key_of(backbone, **options)
        fresh = key not in keys and key.file not in {other.file for other in keys}
        keys.add(key)
        return fresh

    assert is_new(backbone, engine="openvino")
    assert is_new(backbone, cut=2)
    assert is_new(AllStagesBackbone(small()))
    assert is_new(AllStagesBackbone(small(), with_statistics=True))
    for name, tensor in backbone.network.state_dict().items():
        if tensor.is_floating_point():
            tensor.view(-1)[-1] += 1
            assert is_new(backbone), name
    monkeypatch.setattr(compiled, "GRAPH_VERSION", -1)
    assert is_new(backbone)
    monkeypatch.setattr(torch, "__version__", "another")
    assert is_new(backbone)
    monkeypatch.setattr(compiled, "describe_version", lambda engine: "another")
    assert is_new(backbone)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "another")
    assert is_new(backbone)
    files = {replace(key_of(backbone), **{field.name: "x"}).file for field in fields(StagesKey)}
    assert len(files) == len(fields(StagesKey))


def test_weights_above_the_cut_do_not_count(small):
    backbone = small()
    before = key_of(backbone, cut=2)
    backbone.network.layer4[0].conv1.weight.data.add_(1)
    assert key_of(backbone, cut=2) == before
    assert key_of(backbone, cut=5) != key_of(small(), cut=5)


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "gone", "record"])
def test_a_damaged_file_is_made_anew(small, own_cache, exports, damage, monkeypatch):
    backbone, x = small(), torch.randn(1, *SHAPE)
    key = key_of(backbone)
    expected, content = compile_stages(backbone, key)(x), key.file.read_bytes()
    bad = {"cut": content[:-100], "flipped": content[:999] + bytes([content[999] ^ 1]) + content[1000:], "empty": b""}
    if damage in bad:
        key.file.write_bytes(bad[damage])
    elif damage == "gone":
        key.file.unlink()
    else:
        key.file.with_suffix(".json").write_text('{"reason": "')
    monkeypatch.setattr(compiled, "_verdicts", {})
    assert torch.equal(compile_stages(backbone, key)(x), expected)
    assert key.file.read_bytes() == content
    assert len(exports) == 2


def test_the_record_of_another_network_counts_for_nothing(small, own_cache, exports, monkeypatch):
    one, other = key_of(small()), key_of(small(seed=1))
    compile_stages(small(), one)
    other.file.write_bytes(one.file.read_bytes())
    other.file.with_suffix(".json").write_bytes(one.file.with_suffix(".json").read_bytes())
    x = torch.randn(1, *SHAPE)
    with torch.no_grad():
        assert torch.allclose(compile_stages(small(seed=1), other)(x), small(seed=1)(x), atol=1e-5)


class Fickle(nn.Module):
    """A network that cannot be exported, or whose graph computes something else."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, 2, 1)
        self.head = nn.Conv2d(4, 8, 3, 2, 1)
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        y = self.head(self.stem(x).relu()).mean((2, 3))
        if self.kind == "not in ONNX":
            return torch.special.bessel_j0(y)
        return y * torch.tensor(1.0 + torch.onnx.is_in_onnx_export())


@pytest.mark.parametrize("kind", ["not in ONNX", "another result"])
def test_a_network_that_fails_runs_on_torch_and_the_log_says_so(small, own_cache, kind, caplog, exports, monkeypatch):
    backbone = Backbone("fickle", Fickle(kind).eval(), small().preprocessing)
    key = key_of(backbone)
    with caplog.at_level(logging.INFO):
        assert compile_stages(backbone, key) is None
    assert "fickle runs on torch, not on onnxruntime: " in caplog.text
    assert not is_compiled(backbone, key)
    monkeypatch.setattr(compiled, "_verdicts", {})
    assert compile_stages(backbone, key) is None  # remembered
    assert len(exports) == 1
    assert not key.file.exists()


def test_without_the_package_it_is_torch_for_this_process_alone(small, own_cache, monkeypatch):
    backbone = small()
    key = key_of(backbone)

    def missing(graph, threads):
        raise ImportError("no module")

    with monkeypatch.context() as patch:
        patch.setitem(ENGINES, "onnxruntime", missing)
        assert compile_stages(backbone, key) is None
        assert not is_compiled(backbone, key)
    monkeypatch.setattr(compiled, "_verdicts", {})
    assert is_compiled(backbone, key)


def test_a_folder_that_cannot_be_written_costs_an_export_only(small, tmp_path, own_cache, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TRANSFER_CACHE", str(tmp_path / "file" / "cache"))
    backbone = small()
    assert compile_stages(backbone, key_of(backbone)) is not None
    assert is_compiled(backbone, key_of(backbone))


def test_old_files_make_room_for_new_ones(small, own_cache, monkeypatch):
    first = key_of(small())
    compile_stages(small(), first)
    monkeypatch.setattr(compiled, "MAX_GRAPH_BYTES", 2 * first.file.stat().st_size + 100)
    for seed in (1, 2):
        backbone = small(seed=seed)
        compile_stages(backbone, key_of(backbone))
    assert not first.file.exists()
    assert sorted(file.suffix for file in own_cache.iterdir()) == [".json", ".json", ".onnx", ".onnx"]


def test_nothing_is_stored_where_that_is_not_wanted(small, own_cache):
    assert compile_stages(small(), key_of(small()), store=False) is not None
    assert not own_cache.exists()


def test_the_record_is_json_with_the_error(small, own_cache):
    key = key_of(small())
    compile_stages(small(), key)
    about = json.loads(key.file.with_suffix(".json").read_text())
    assert about["reason"] == ""
    assert 0 <= about["error"] < 1e-5
