import http.server
import json
import os
import socket
import threading
from functools import partial

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from transfer.backbones import load, weight_paths, weights
from transfer.backbones.providers.timm_models import TimmModels
from transfer.backbones.providers.torchvision_models import _read_weights
from transfer.errors import TransferError

NAME = "resnet10t"


@pytest.fixture(autouse=True)
def _nothing_from_outside(monkeypatch, tmp_path):
    """No store; hub caches in a fresh folder; the hubs at a port where nobody answers."""
    monkeypatch.delenv("TRANSFER_WEIGHTS", raising=False)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True, raising=False)  # which old versions have not
    _hub(monkeypatch, "http://127.0.0.1:9")


def _hub(monkeypatch, address):
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")


@pytest.fixture
def published():
    """A network as its provider publishes it, classifier included."""
    torch.manual_seed(7)
    return timm.create_model(NAME, num_classes=1000).state_dict()


def _same(backbone, state):
    own = backbone.network.state_dict()
    assert all(torch.equal(tensor, state[key]) for key, tensor in own.items())
    return True


def test_safetensors_and_torch_files(tmp_path, published):
    save_file(published, tmp_path / "a.safetensors")
    torch.save(published, tmp_path / "b.pth")
    for file in ("a.safetensors", "b.pth"):
        backbone = load(NAME, weights=tmp_path / file)
        assert _same(backbone, published)
        assert backbone.weights == f"file {tmp_path / file}"
        assert not backbone.training
        assert backbone.classifier is None


@pytest.mark.parametrize("wrapper", weights.WRAPPERS)
@pytest.mark.parametrize("prefix", ["module.", "model.", "_orig_mod.module."])
def test_wrapped_and_prefixed(tmp_path, published, wrapper, prefix):
    file = tmp_path / "w.pt"
    torch.save({"epoch": 3, wrapper: {f"{prefix}{k}": v for k, v in published.items()}}, file)
    read = weights.read_weights_file(file)
    assert read.keys() == published.keys()
    assert torch.equal(read["conv1.0.weight"], published["conv1.0.weight"])


def test_averaged_weights_are_preferred(tmp_path, published):
    average = {key: tensor + 1 for key, tensor in published.items()}
    torch.save({"state_dict": published, "state_dict_ema": average}, tmp_path / "w.pt")
    assert torch.equal(weights.read_weights_file(tmp_path / "w.pt")["fc.bias"], average["fc.bias"])


def test_half_precision_is_loaded_as_float(tmp_path, published):
    save_file({k: v.half() if v.is_floating_point() else v for k, v in published.items()}, tmp_path / "h.safetensors")
    backbone = load(NAME, weights=tmp_path / "h.safetensors")
    assert backbone.network.conv1[0].weight.dtype == torch.float32
    torch.testing.assert_close(backbone.network.conv1[0].weight, published["conv1.0.weight"], atol=1e-3, rtol=1e-3)


def test_a_classifier_is_dropped_or_loaded_on_request(tmp_path, published):
    published["fc.weight"], published["fc.bias"] = torch.randn(31, 512), torch.randn(31)
    save_file(published, tmp_path / "w.safetensors")
    backbone = load(NAME, weights=tmp_path / "w.safetensors", classifier=True)
    assert torch.equal(backbone.classifier.weight, published["fc.weight"])
    assert torch.equal(backbone.classifier.bias, published["fc.bias"])
    assert not any(p is backbone.classifier.weight for p in backbone.parameters())
    headless = {key: tensor for key, tensor in published.items() if not key.startswith("fc.")}
    save_file(headless, tmp_path / "w.safetensors")
    assert _same(load(NAME, weights=tmp_path / "w.safetensors"), published)
    with pytest.raises(TransferError, match="has no linear classifier"):
        load(NAME, weights=tmp_path / "w.safetensors", classifier=True)


def test_files_that_do_not_count_batches(tmp_path, published):
    save_file({k: v for k, v in published.items() if "num_batches" not in k}, tmp_path / "w.safetensors")
    assert torch.equal(load(NAME, weights=tmp_path / "w.safetensors").network.bn1.weight, published["bn1.weight"])


def _misfit(tmp_path, state):
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(TransferError) as error:
        load(NAME, weights=tmp_path / "w.safetensors")
    assert "\n" not in str(error.value)
    return str(error.value)


def test_tensors_that_do_not_fit_are_listed(tmp_path, published):
    message = _misfit(tmp_path, {**published, "neck.weight": torch.ones(2)})
    assert f"file {tmp_path / 'w.safetensors'} does not fit resnet10t: 1 unexpected (neck.weight)" in message
    del published["layer1.0.conv1.weight"]
    assert "1 missing (layer1.0.conv1.weight)" in _misfit(tmp_path, published)
    published["layer1.0.conv1.weight"] = torch.ones(1, 2)
    assert "1 of another shape (layer1.0.conv1.weight (1, 2), not (64, 64, 3, 3))" in _misfit(tmp_path, published)
    message = _misfit(tmp_path, {f"x{i}": torch.ones(1) for i in range(9)})
    assert "9 unexpected (x0, x1, x2, x3, …)" in message
    assert "missing (conv1.0.weight, " in message


class _Malicious:
    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_malicious_pickle_is_refused(tmp_path, published, wrapped):
    bomb = _Malicious()
    bomb.path = str(tmp_path / "exploded")
    torch.save({"state_dict": published, "args": bomb} if wrapped else bomb, tmp_path / "w.pth")
    with pytest.raises(TransferError, match="unpickling runs code"):
        load(NAME, weights=tmp_path / "w.pth")
    assert not (tmp_path / "exploded").exists()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("content", [b"", b"not weights", b"\x80\x04N."])
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_file_that_holds_no_weights(tmp_path, content, suffix):
    file = tmp_path / f"w{suffix}"
    file.write_bytes(content)
    with pytest.raises(TransferError, match=r"w\.(safetensors|pt) (cannot be read|is not loaded|holds no weights)"):
        weights.read_weights_file(file)


def test_files_without_weights(tmp_path):
    with pytest.raises(TransferError, match="no weights file"):
        load(NAME, weights=tmp_path / "gone.safetensors")
    torch.save({"epoch": 3}, tmp_path / "w.pt")
    with pytest.raises(TransferError, match="holds no weights"):
        weights.read_weights_file(tmp_path / "w.pt")


def test_preprocessing_travels_with_the_file(tmp_path, published):
    save_file(published, tmp_path / "w.safetensors")
    assert load(NAME, weights=tmp_path / "w.safetensors").preprocessing == TimmModels().preprocessing(NAME)
    record = {
        "input_size": [3, 96, 96],
        "mean": [0] * 3,
        "std": [1] * 3,
        "interpolation": "nearest",
        "crop_pct": 1,
        "x": 1,
    }
    (tmp_path / "w.json").write_text(json.dumps(record))
    found = load(NAME, weights=tmp_path / "w.safetensors").preprocessing
    assert (found.input_size, found.interpolation) == ((3, 96, 96), "nearest")
    for bad in ("{", "[]", "{}", json.dumps({**record, "interpolation": "blurred"})):
        (tmp_path / "w.json").write_text(bad)
        with pytest.raises(TransferError, match=r"w\.json is no preprocessing record"):
            load(NAME, weights=tmp_path / "w.safetensors")


def test_the_order_is_file_store_hub(tmp_path, published, monkeypatch):
    monkeypatch.setattr(TimmModels, "download", lambda self, name: published)
    monkeypatch.setattr(weights, "_check_reachable", lambda source: None)
    assert load(NAME).weights == "hub timm/resnet10t.c3_in1k"
    save_file(published, tmp_path / f"{NAME}.safetensors")
    monkeypatch.setenv("TRANSFER_WEIGHTS", str(tmp_path))
    assert load(f"{NAME}.c3_in1k").weights == f"store {tmp_path / NAME}.safetensors"
    save_file(published, tmp_path / "other.safetensors")
    assert load(NAME, weights=tmp_path / "other.safetensors").weights == f"file {tmp_path / 'other.safetensors'}"


@pytest.mark.parametrize("store", [False, True])
def test_without_weights_the_error_suggests_where_to_put_them(tmp_path, store):
    with pytest.raises(TransferError) as error:
        load(f"{NAME}.c3_in1k", store=tmp_path if store else None)
    message = str(error.value)
    assert "no weights for resnet10t.c3_in1k" in message
    assert "\n" not in message
    assert "127.0.0.1 cannot be reached" in message
    assert "save http://127.0.0.1:9/timm/resnet10t.c3_in1k/resolve/main/model.safetensors as" in message
    if store:
        assert f"no resnet10t.c3_in1k.safetensors or resnet10t.safetensors in the store {tmp_path}" in message
    assert f"{tmp_path if store else '$TRANSFER_WEIGHTS'}/resnet10t.c3_in1k.safetensors" in message
    assert "--weights" in message
    assert "--random-init" in message


def test_a_hub_that_never_answers_is_given_up(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and says nothing
        _hub(monkeypatch, f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr(weights, "_check_reachable", partial(weights._check_reachable, seconds=0.5))
        with pytest.raises(TransferError, match="cannot be reached"):
            load(NAME)


def test_offline_mode_is_respected(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(TransferError, match="HF_HUB_OFFLINE is set"):
        load(NAME)


def test_no_hub_has_it(tmp_path):
    with pytest.raises(TransferError, match=r"put its weights at .*vovnet57a\.safetensors"):
        load("vovnet57a", store=tmp_path)


class _Server(http.server.SimpleHTTPRequestHandler):
    def end_headers(self):
        if "/resolve/" in self.path:  # what the Hugging Face client wants to hear
            self.send_header("X-Repo-Commit", "0" * 40)
            self.send_header("ETag", '"1"')
        super().end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path):
    """A hub: its address and the folder that it serves."""
    folder = tmp_path / "served"
    folder.mkdir()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Server, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", folder
        server.shutdown()


def test_timms_downloader_on_a_local_hub(server, monkeypatch, published):
    address, folder = server
    _hub(monkeypatch, address)
    file = folder / "timm/resnet10t.c3_in1k/resolve/main/model.safetensors"
    with pytest.raises(TransferError, match="the hub has none"):
        load(NAME)
    file.parent.mkdir(parents=True)
    save_file(published, file)
    backbone = load(NAME, classifier=True)
    assert _same(backbone, published)
    assert backbone.weights == "hub timm/resnet10t.c3_in1k"
    assert torch.equal(backbone.classifier.weight, published["fc.weight"])
    file.unlink()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert _same(load(NAME), published)  # from the hub's own cache


def test_torchvisions_downloader_on_a_local_hub(server, monkeypatch):
    import torchvision

    address, folder = server
    name = "torchvision:shufflenet_v2_x0_5"
    torch.manual_seed(7)
    published = torchvision.models.shufflenet_v2_x0_5().state_dict()
    torch.save(published, folder / "shufflenet.pth")
    record = _read_weights(name).value
    monkeypatch.setattr(record, "url", f"{address}/shufflenet.pth")
    backbone = load(name, classifier=True)
    assert _same(backbone, published)
    assert backbone.weights == f"hub {address}/shufflenet.pth"
    assert torch.equal(backbone.classifier.bias, published["fc.bias"])
    assert weight_paths.is_in_hub_cache(f"{address}/shufflenet.pth")


def test_a_malicious_file_on_the_hub_is_refused(server, monkeypatch, tmp_path):
    address, folder = server
    bomb = _Malicious()
    bomb.path = str(tmp_path / "exploded")
    torch.save(bomb, folder / "shufflenet.pth")
    record = _read_weights("torchvision:shufflenet_v2_x0_5").value
    monkeypatch.setattr(record, "url", f"{address}/shufflenet.pth")
    with pytest.raises(TransferError, match="the hub has none"):
        load("torchvision:shufflenet_v2_x0_5")
    assert not (tmp_path / "exploded").exists()


def test_weights_of_networks_that_keep_a_version(tmp_path):
    import torchvision

    published = torchvision.models.mnasnet0_5().state_dict()
    save_file(published, tmp_path / "w.safetensors")  # keeps no version
    assert _same(load("torchvision:mnasnet0_5", weights=tmp_path / "w.safetensors"), published)


@pytest.mark.parametrize("content", [b"\nX", b"KK", b"\xffj", b"", b"PK\x03\x04", b"\x80\x02."])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_broken_bytes_are_a_one_line_error(tmp_path, content, suffix):
    """Found by fuzzing: torch raises IndexError, TypeError, struct.error and more."""
    (tmp_path / f"w{suffix}").write_bytes(content)
    with pytest.raises(TransferError, match=rf"w{suffix} (cannot be read as weights|is not loaded|holds no weights)"):
        weights.read_weights_file(tmp_path / f"w{suffix}")


def test_weights_that_are_not_finite_are_refused(tmp_path, published):
    published["layer1.0.conv1.weight"][0, 0, 0, 0] = float("nan")
    save_file(published, tmp_path / "w.safetensors")
    with pytest.raises(TransferError, match=r"w\.safetensors is not finite in layer1\.0\.conv1\.weight"):
        load(NAME, weights=tmp_path / "w.safetensors")


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", '{"mean": 1}', "\udcff", '{"crop_pct": 1e-9}'])
def test_a_damaged_record_is_one_line(tmp_path, text):
    (tmp_path / "w.json").write_text(text, errors="surrogateescape")
    with pytest.raises(TransferError, match="is no preprocessing record"):
        weights.read_record_beside(tmp_path / "w.safetensors")
