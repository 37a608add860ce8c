import csv
import subprocess
import sys
from importlib.metadata import version

import pytest
import timm
from torchvision import models

from transfer.backbones import measured_rates, speed
from transfer.backbones import shortlist as module
from transfer.backbones.catalogue import list_backbones
from transfer.backbones.registry import resolve
from transfer.backbones.shortlist import list_shortlist, read_shortlist, write_shortlist
from transfer.backbones.speed import MachineSpeed, NetworkWork

ROWS = {name: rest for name, *rest in read_shortlist()}


@pytest.fixture
def no_measuring(monkeypatch, tmp_path):
    """Replace measuring by a list of the names that are measured; no weights but those in packages and bundle."""
    monkeypatch.delenv("TRANSFER_WEIGHTS", raising=False)
    for name in ("HF_HUB_CACHE", "HF_HOME", "TORCH_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    measured = []

    def measure(name, device):
        measured.append(name)
        return 100.0

    def calibrate(rates, work):
        assert set(rates) == set(speed.CALIBRATION)
        return MachineSpeed(NetworkWork(1e-5, 1e-3))

    monkeypatch.setattr(measured_rates, "measure_rate", measure)
    monkeypatch.setattr(speed, "calibrate_speed", calibrate)
    monkeypatch.setenv("TRANSFER_CACHE", str(tmp_path / "cache"))
    return measured


@pytest.mark.parametrize("name", ROWS)
def test_each_row_agrees_with_its_provider(name):
    provider, full = resolve(name)
    _, top1_size, size, _ = ROWS[name]
    assert provider.preprocessing(full).input_size == (3, size, size)
    (row,) = (row for row in list_backbones(name) if row.name == name)
    if provider.label == "timm":
        config = timm.get_pretrained_cfg(name)
        assert row.licence.lower() == config.license
        if top1_size:  # timm's results are at the test size, where a record has one
            assert top1_size == (config.test_input_size or config.input_size)[1]
    else:
        assert row.licence == provider.licence(full)


@pytest.mark.parametrize("name", [name for name in ROWS if name.startswith("torchvision:")])
def test_accuracies_of_torchvision_are_those_of_its_metadata(name):
    architecture, _, tag = name.removeprefix("torchvision:").partition(".")
    weights = models.get_model_weights(architecture)[tag or "DEFAULT"]
    assert ROWS[name][0] == weights.meta["_metrics"]["ImageNet-1K"]["acc@1"]
    assert ROWS[name][1] == weights.transforms().crop_size[0]


def test_networks_that_were_not_trained_on_imagenets_labels_have_no_accuracy():
    without = {name for name, (top1, *_) in ROWS.items() if top1 is None}
    assert "glyphnet" in without
    assert {name for name in ROWS if "clip" in name or "dinov3" in name} == without - {"glyphnet"}
    assert all(50 < top1 < 90 for top1, *_ in ROWS.values() if top1)


def test_slow_networks_and_those_without_weights_here_are_modelled(no_measuring, monkeypatch):
    monkeypatch.setattr(module, "MIN_RATE_TO_MEASURE", 1.0)
    rows = {row.backbone.name: row for row in list_shortlist("cpu")}
    assert list(rows) == list(ROWS)
    here = {name for name, row in rows.items() if row.backbone.where.startswith(("package", "bundle"))}
    assert sorted(no_measuring) == sorted(here | set(speed.CALIBRATION))  # each once
    assert {name for name, row in rows.items() if row.measured} == here | set(speed.CALIBRATION)
    assert rows["glyphnet"].rate == 100.0
    work = ROWS["resnet34.a1_in1k"][-1]
    assert rows["resnet34.a1_in1k"].rate == pytest.approx(1 / (work.multiply_adds / 1e5 + work.activations / 1e3))
    no_measuring.clear()
    assert {row.backbone.name for row in list_shortlist("cpu") if row.measured} == here | set(speed.CALIBRATION)
    assert no_measuring == []  # cached
    monkeypatch.setattr(module, "MIN_RATE_TO_MEASURE", 1e9)
    assert {row.backbone.name for row in list_shortlist("cpu") if row.measured} == set(speed.CALIBRATION)


def test_a_name_that_the_installed_versions_lack_is_left_out(no_measuring, monkeypatch, tmp_path):
    table = tmp_path / "shortlist.csv"
    table.write_text(",".join(module.COLUMNS) + "\nresnet18.of_tomorrow,70,224,224,1,1\nresnet18,,,224,1813.56,2.48\n")
    monkeypatch.setattr(module, "SHORTLIST", table)
    assert [row.backbone.name for row in list_shortlist("cpu")] == ["resnet18"]


def test_rebuilding_the_table_changes_nothing(monkeypatch, tmp_path):
    if version("timm") != "1.0.31":
        pytest.skip("the table was made for another version of timm")
    names = ("torchvision:squeezenet1_1", "tf_efficientnet_lite1", "convnext_atto.d2_in1k", "glyphnet")
    with module.SHORTLIST.open(newline="") as file:
        head, *lines = file.read().splitlines()
    kept = [line for line in lines if line.startswith(names)]
    blank = [",".join([*line.split(",")[:3], "", "", ""]) for line in kept]
    table = tmp_path / "shortlist.csv"
    table.write_text("\n".join([head, *blank]) + "\n")
    monkeypatch.setattr(module, "SHORTLIST", table)
    write_shortlist()
    assert table.read_text().splitlines() == [head, *kept]
    assert len(list(csv.reader(kept))) == len(names)


def test_it_is_imported_without_torch():
    code = "import sys, transfer.backbones.shortlist; assert not {'torch', 'timm'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
