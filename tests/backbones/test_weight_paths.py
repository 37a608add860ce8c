import pytest

from transfer.backbones import weight_paths
from transfer.errors import TransferError


def test_the_full_tag_comes_before_the_bare_name(tmp_path):
    (tmp_path / "resnet50.safetensors").touch()
    assert weight_paths.find_store_file("resnet50.a1_in1k", tmp_path).name == "resnet50.safetensors"
    (tmp_path / "resnet50.a1_in1k.pth").touch()
    assert weight_paths.find_store_file("resnet50.a1_in1k", tmp_path).name == "resnet50.a1_in1k.pth"
    assert weight_paths.find_store_file("resnet50", tmp_path).name == "resnet50.safetensors"


def test_the_provider_is_dropped_and_safetensors_preferred(tmp_path):
    for suffix in (".pth", ".pt", ".safetensors"):
        (tmp_path / f"squeezenet1_1{suffix}").touch()
    assert weight_paths.find_store_file("torchvision:squeezenet1_1", tmp_path).name == "squeezenet1_1.safetensors"
    assert weight_paths.find_store_file("torchvision:squeezenet1_0", tmp_path) is None
    assert weight_paths.find_store_file("squeezenet1_1", None) is None


def test_the_store_is_given_or_in_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv("TRANSFER_WEIGHTS", raising=False)
    assert weight_paths.find_store() is None
    monkeypatch.setenv("TRANSFER_WEIGHTS", str(tmp_path))
    assert weight_paths.find_store() == tmp_path
    with pytest.raises(TransferError, match="elsewhere is no folder"):
        weight_paths.find_store(tmp_path / "elsewhere")
    monkeypatch.setenv("TRANSFER_WEIGHTS", str(tmp_path / "gone"))
    with pytest.raises(TransferError, match=r"gone \(from TRANSFER_WEIGHTS\) is no folder"):
        weight_paths.find_store()


def test_hub_caches_are_seen_where_their_libraries_keep_them(tmp_path, monkeypatch):
    for name in ("HF_HUB_CACHE", "HF_HOME", "TORCH_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    source = "hf:timm/resnet18.a1_in1k"
    file = tmp_path / "huggingface/hub/models--timm--resnet18.a1_in1k/snapshots/0/model.safetensors"
    assert not weight_paths.is_in_hub_cache(source)
    file.parent.mkdir(parents=True)
    file.touch()
    assert weight_paths.is_in_hub_cache(source)
    url = "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth"
    assert not weight_paths.is_in_hub_cache(url)
    (tmp_path / "torch/hub/checkpoints").mkdir(parents=True)
    (tmp_path / "torch/hub/checkpoints/alexnet-owt-7be5be79.pth").touch()
    assert weight_paths.is_in_hub_cache(url)


def test_only_the_bundled_backbone_is_in_the_bundle():
    assert weight_paths.find_bundled_file("resnet18") is None
    if (weight_paths.BUNDLE / "glyphnet.safetensors").is_file():
        assert weight_paths.find_bundled_file("glyphnet").is_file()
