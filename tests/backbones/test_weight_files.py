import pytest

from transfer.backbones import places
from transfer.errors import TransferError


def test_the_full_tag_comes_before_the_bare_name(tmp_path):
    (tmp_path / "resnet50.safetensors").touch()
    assert places.store_file("resnet50.a1_in1k", tmp_path).name == "resnet50.safetensors"
    (tmp_path / "resnet50.a1_in1k.pth").touch()
    assert places.store_file("resnet50.a1_in1k", tmp_path).name == "resnet50.a1_in1k.pth"
    assert places.store_file("resnet50", tmp_path).name == "resnet50.safetensors"


def test_the_provider_is_dropped_and_safetensors_preferred(tmp_path):
    for suffix in (".pth", ".pt", ".safetensors"):
        (tmp_path / f"squeezenet1_1{suffix}").touch()
    assert places.store_file("torchvision:squeezenet1_1", tmp_path).name == "squeezenet1_1.safetensors"
    assert places.store_file("torchvision:squeezenet1_0", tmp_path) is None
    assert places.store_file("squeezenet1_1", None) is None


def test_the_store_is_said_or_in_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv("TRANSFER_WEIGHTS", raising=False)
    assert places.store_folder() is None
    monkeypatch.setenv("TRANSFER_WEIGHTS", str(tmp_path))
    assert places.store_folder() == tmp_path
    with pytest.raises(TransferError, match="elsewhere is no folder"):
        places.store_folder(tmp_path / "elsewhere")
    monkeypatch.setenv("TRANSFER_WEIGHTS", str(tmp_path / "gone"))
    with pytest.raises(TransferError, match=r"gone \(from TRANSFER_WEIGHTS\) is no folder"):
        places.store_folder()


def test_hub_caches_are_seen_where_their_libraries_keep_them(tmp_path, monkeypatch):
    for name in ("HF_HUB_CACHE", "HF_HOME", "TORCH_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    source = "hf:timm/resnet18.a1_in1k"
    file = tmp_path / "huggingface/hub/models--timm--resnet18.a1_in1k/snapshots/0/model.safetensors"
    assert not places.hub_cached(source)
    file.parent.mkdir(parents=True)
    file.touch()
    assert places.hub_cached(source)
    url = "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth"
    assert not places.hub_cached(url)
    (tmp_path / "torch/hub/checkpoints").mkdir(parents=True)
    (tmp_path / "torch/hub/checkpoints/alexnet-owt-7be5be79.pth").touch()
    assert places.hub_cached(url)


def test_only_the_bundled_backbone_is_in_the_bundle():
    assert places.bundle_file("resnet18") is None
    if (places.BUNDLE / "glyphnet.safetensors").is_file():
        assert places.bundle_file("glyphnet").is_file()
