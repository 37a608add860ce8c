import csv
import subprocess
import sys

import pytest
import timm

from transfer.backbones import catalogue as module
from transfer.backbones import registry, weight_packages
from transfer.backbones.catalogue import format_provider_versions, list_backbones, measure_backbone
from transfer.backbones.registry import resolve
from transfer.backbones.weight_packages import WeightPackage


@pytest.fixture(autouse=True)
def _no_weights(monkeypatch, tmp_path):
    monkeypatch.delenv("TRANSFER_WEIGHTS", raising=False)
    for name in ("HF_HUB_CACHE", "HF_HOME", "TORCH_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "none"))


def _tabulated_for_these_versions():
    return module.TABLE.read_text().splitlines()[0] == f"# {format_provider_versions()}"


def test_the_table_has_what_the_registry_has():
    if not _tabulated_for_these_versions():
        pytest.skip("the table was made for other versions of timm and torchvision")
    with module.TABLE.open(newline="") as file:
        file.readline()
        assert {row[0] for row in csv.reader(file)} == set(registry.list_names())
    assert module.TABLE.stat().st_size < 100_000


@pytest.mark.parametrize(
    "name", ["mobilenetv2_100.ra_in1k", "resnet10t.c3_in1k", "torchvision:squeezenet1_1.IMAGENET1K_V1"]
)
def test_the_table_agrees_with_measuring(name):
    (row,) = list_backbones(name)
    measured = measure_backbone(name)
    assert (row.parameters, row.width, row.stages) == (measured.parameters, measured.width, measured.stages)
    assert (row.provider, row.licence) == (measured.provider, measured.licence)


def test_the_table_has_the_licence_that_the_provider_states():
    with module.TABLE.open(newline="") as file:
        if not file.readline().startswith(f"# timm {timm.__version__} "):
            pytest.skip("the table was made for another version of timm")
        for name, provider, *_, licence, _ in csv.reader(file):
            stated = timm.get_pretrained_cfg(name).license if provider == "timm" else resolve(name)[0].licence(name)
            assert licence.lower() == (stated or "").lower(), name


def test_a_package_states_the_licence_of_its_weights(monkeypatch):
    (row,) = list_backbones("tf_efficientnet_lite3.in1k")
    package = WeightPackage(("tf_efficientnet_lite3.in1k",), "timm", "any", "0", "CC0-1.0")
    monkeypatch.setattr(weight_packages, "PACKAGES", (package,))
    (brought,) = list_backbones("tf_efficientnet_lite3.in1k")
    assert (row.licence, row.where) == ("Apache-2.0", "hub")
    assert (brought.licence, brought.where) == ("CC0-1.0", "package timm")


def test_an_architecture_comes_before_its_tags():
    names = [row.name for row in list_backbones("resnet50*")]
    assert names[:2] == ["resnet50", "resnet50.a1_in1k"]
    assert "torchvision:resnet50.IMAGENET1K_V2" in names
    assert len(set(names)) == len(names)
    assert all("resnet50" in name for name in names)
    assert [row.name for row in list_backbones("timm:resnet50.a1_in1k")] == ["resnet50.a1_in1k"]
    assert {row.provider for row in list_backbones("torchvision:*")} == {"torchvision"}
    assert list(list_backbones("nothing of the kind")) == []


def test_where_the_weights_are(tmp_path, monkeypatch):
    def where(name):
        return next(list_backbones(name)).where

    monkeypatch.delenv("TRANSFER_WEIGHTS", raising=False)
    assert where("resnet18") == "hub"
    assert where("glyphnet") == "bundle (pretrained on rendered letters, not ImageNet)"
    (tmp_path / "resnet18.safetensors").touch()
    monkeypatch.setenv("TRANSFER_WEIGHTS", str(tmp_path))
    assert where("resnet18") == "store"
    assert [row.where for row in list_backbones("resnet18.a1_in1k")] == ["store"]
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    cached = tmp_path / "models--timm--resnet34.a1_in1k" / "snapshots" / "0" / "model.safetensors"
    cached.parent.mkdir(parents=True)
    cached.touch()
    assert where("resnet34.a1_in1k") == "hub (cached)"
    assert where("resnet34") == "hub (cached)"  # a1_in1k is its default


def test_names_beyond_the_table_are_measured(tmp_path, monkeypatch):
    table = tmp_path / "catalogue.csv"
    table.write_text("# timm 0.1 torchvision 0.1\nresnet10t.c3_in1k,timm,1,2,3,Apache-2.0,=\n")
    monkeypatch.setattr(module, "TABLE", table)
    rows = {row.name: row for row in list_backbones("resnet1[04]t*")}
    assert rows["resnet10t"].parameters == 1
    assert rows["resnet14t.c3_in1k"].width == 2048
    assert rows["resnet14t"].where == "hub"


def test_names_of_other_versions_are_left_out(tmp_path, monkeypatch):
    table = tmp_path / "catalogue.csv"
    table.write_text(
        "# timm 0.1 torchvision 0.1\nresnet9.mine,timm,1,2,3,,=\nresnet10t.c3_in1k,timm,1,2,3,Apache-2.0,=\n"
    )
    monkeypatch.setattr(module, "TABLE", table)
    assert [row.name for row in list_backbones("resnet9*")] == []
    assert [row.name for row in list_backbones("resnet10t*")] == ["resnet10t", "resnet10t.c3_in1k"]


def test_the_table_is_read_without_torch():
    if not _tabulated_for_these_versions():
        pytest.skip("the table was made for other versions of timm and torchvision")
    code = (
        "import sys; from transfer.backbones.catalogue import list_backbones; next(list_backbones('resnet*'));"
        "assert not {'torch', 'timm', 'torchvision'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
