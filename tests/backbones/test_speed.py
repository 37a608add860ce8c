import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from transfer.backbones import speed
from transfer.backbones.shortlist import read_shortlist
from transfer.backbones.speed import NetworkWork, calibrate_speed, count_work, measure_rate
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


def test_the_calibrated_model_is_exact_on_its_own_networks(monkeypatch):
    rates = {"tf_efficientnet_lite0": 50.0, "resnet18.a1_in1k": 30.0}
    monkeypatch.setattr(speed, "measure_rate", lambda name, device: rates[name])
    fitted = calibrate_speed()
    assert fitted.measured == rates
    for name, rate in rates.items():
        assert fitted.predict(count_work(name)) == pytest.approx(rate)


def test_no_share_of_the_time_is_negative(monkeypatch):
    rates = {"tf_efficientnet_lite0": 50.0, "resnet18.a1_in1k": 1.0}  # more than the multiply-adds explain
    monkeypatch.setattr(speed, "measure_rate", lambda name, device: rates[name])
    fitted = calibrate_speed()
    assert min(fitted.seconds.multiply_adds, fitted.seconds.activations) == 0.0
    assert fitted.predict(NetworkWork(1000.0, 5.0)) > 0


def test_modelled_and_measured_rates_agree():
    # Other processes slow either down, so only a factor is tested: tests/benchmarks/network_speed.py has the ratios.
    work = {name: work for name, *_, work in read_shortlist()}
    fitted = calibrate_speed()
    for name in ("torchvision:squeezenet1_1", "convnext_atto.d2_in1k"):
        assert 1 / 3 < measure_rate(name) / fitted.predict(work[name]) < 3, name
