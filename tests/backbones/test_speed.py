import time

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from transfer.backbones import speed
from transfer.backbones.shortlist import read_shortlist
from transfer.backbones.speed import CALIBRATION, NetworkWork, calibrate_speed, count_work, measure_rate
from transfer.backbones.trunk import Trunk
from transfer.backbones.weights import load


@pytest.mark.parametrize("name", ["resnet10t", "convnext_atto", "tf_efficientnet_lite0", "torchvision:squeezenet1_1"])
def test_multiply_adds_are_those_that_torch_counts(name):
    backbone = load(name, random_init=True)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        backbone(torch.zeros(1, *backbone.preprocessing.input_size))
    assert count_work(name).multiply_adds == pytest.approx(counter.get_total_flops() / 2e6, rel=1e-6)


def test_activations_are_the_values_that_convolutions_write():
    written = []
    backbone = load("mobilenetv2_050", random_init=True)
    for module in backbone.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(lambda layer, inputs, output: written.append(output.numel()))
    with torch.no_grad():
        backbone(torch.zeros(1, *backbone.preprocessing.input_size))
    assert count_work("mobilenetv2_050").activations == sum(written) / 1e6


WORK = {name: work for name, *_, work in read_shortlist()}


def test_the_calibrated_model_is_exact_on_its_own_networks():
    rates = {"tf_efficientnet_lite0": 50.0, "resnet18.a1_in1k": 30.0}
    fitted = calibrate_speed(rates, WORK)
    for name, rate in rates.items():
        assert fitted.predict(WORK[name]) == pytest.approx(rate)
        counted = count_work(name)
        assert fitted.predict(counted) == pytest.approx(rate, rel=0.01)  # the table's figures are rounded


def test_no_share_of_the_time_is_negative():
    rates = {"tf_efficientnet_lite0": 50.0, "resnet18.a1_in1k": 1.0}  # more than the multiply-adds explain
    fitted = calibrate_speed(rates, WORK)
    assert min(fitted.seconds.multiply_adds, fitted.seconds.activations) == 0.0
    assert fitted.predict(NetworkWork(1000.0, 5.0)) > 0


def test_modelled_and_measured_rates_agree():
    # Only a factor is tested: tests/benchmarks/network_speed.py has the ratios.
    fitted = calibrate_speed({name: measure_rate(name) for name in CALIBRATION}, WORK)
    for name in ("torchvision:squeezenet1_1", "convnext_atto.d2_in1k"):
        assert 1 / 2 < measure_rate(name) / fitted.predict(WORK[name]) < 2, name


def test_waiting_is_not_counted(monkeypatch):
    # As if other processes held the cores: a sleep in each batch takes time, but no processor time.
    quiet = measure_rate("resnet10t")
    run = Trunk.__call__

    def interrupted(trunk, images):
        time.sleep(1.0)
        return run(trunk, images)

    monkeypatch.setattr(speed.Trunk, "__call__", interrupted)
    assert measure_rate("resnet10t") > quiet / 5  # the sleep alone would make it a tenth or less
