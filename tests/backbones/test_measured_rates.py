import json
import os

import pytest
import torch

from transfer.backbones import measured_rates as module
from transfer.backbones.measured_rates import MeasuredRates, describe_machine

CPU = torch.device("cpu")


@pytest.fixture
def measured(monkeypatch, tmp_path):
    """Replace measuring by a list of the names that are measured, in a cache folder of the test's own."""
    names: list[str] = []

    def measure(name, device):
        names.append(name)
        return 10.0 * len(names)

    monkeypatch.setattr(module, "measure_rate", measure)
    monkeypatch.setenv("TRANSFER_CACHE", str(tmp_path / "cache"))
    return names


def test_a_network_is_measured_once_on_a_machine(measured, monkeypatch):
    assert MeasuredRates(CPU).measure(["a", "b"]) == {"a": 10.0, "b": 20.0}
    assert MeasuredRates(CPU).measure(["b", "c"]) == {"b": 20.0, "c": 30.0}
    assert MeasuredRates(CPU).measure(["a", "b", "c"]) == {"a": 10.0, "b": 20.0, "c": 30.0}
    assert measured == ["a", "b", "c"]


@pytest.mark.parametrize("part", ["model", "cores", "torch", "engines", "rules"])
def test_another_machine_or_version_measures_again(measured, monkeypatch, part):
    MeasuredRates(CPU).measure(["a"])
    monkeypatch.setattr(module, "describe_machine", lambda device: describe_machine(device) | {part: "another"})
    MeasuredRates(CPU).measure(["a"])
    assert measured == ["a", "a"]


def test_the_processor_is_that_of_the_system(monkeypatch, tmp_path):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nmodel name\t: A Chip @ 2 GHz\n\nmodel name\t: A Chip @ 2 GHz\n")
    monkeypatch.setattr(module, "CPUINFO", cpuinfo)
    assert describe_machine(CPU)["model"] == "A Chip @ 2 GHz"
    monkeypatch.setattr(module, "CPUINFO", tmp_path / "none")
    assert describe_machine(CPU)["model"]
    json.dumps(describe_machine(CPU))


@pytest.mark.parametrize(
    "damaged",
    [
        "{",
        "[]",
        '{"about": 1, "rates": {"a": 5.0}}',
        '{"rates": {"a": 5.0}}',
        "about, rates no dict",
        "about, bad rate",
    ],
)
def test_a_damaged_file_counts_as_empty(measured, damaged):
    first = MeasuredRates(CPU)
    first.measure(["a"])
    about = json.dumps(first.about)
    texts = {
        "about, rates no dict": f'{{"about": {about}, "rates": [1]}}',
        "about, bad rate": f'{{"about": {about}, "rates": {{"a": "fast", "b": -1}}}}',
    }
    first.file.write_text(texts.get(damaged, damaged))
    assert MeasuredRates(CPU).measure(["a"]) == {"a": 20.0}
    assert MeasuredRates(CPU).measure(["a"]) == {"a": 20.0}  # the file was mended
    assert measured == ["a", "a"]


def test_an_unwritable_folder_costs_a_measurement_only(measured, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TRANSFER_CACHE", str(tmp_path / "file" / "cache"))
    assert MeasuredRates(CPU).measure(["a"]) == {"a": 10.0}
    assert MeasuredRates(CPU).measure(["a"]) == {"a": 20.0}


def test_the_file_is_whole_or_absent(measured, monkeypatch):
    rates = MeasuredRates(CPU)
    monkeypatch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError("disk full")))
    assert rates.measure(["a"]) == {"a": 10.0}
    assert not rates.file.exists()
    assert not list(rates.file.parent.iterdir())
