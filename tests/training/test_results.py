import numpy as np
import pytest

from transfer.training.train import train


def test_the_result_counts_the_parameters_that_the_run_trained(config):
    run = train(config(policy="partial:1", epochs=1))
    model = run.models[""]
    backbone = sum(p.numel() for p in model.backbone.parameters())
    heads = sum(p.numel() for p in model.heads.parameters())
    last = sum(p.numel() for n, p in model.backbone.network.named_parameters() if model.backbone.stage_of(n) == 4)
    assert run.result["policy"]["trained_parameters"] == last + heads
    assert run.result["policy"]["frozen_parameters"] == backbone - last


def test_one_domain_has_no_domain_head_and_the_result_says_so(config, folder):
    run = train(config(data=str(folder / "plain"), epochs=1))
    assert set(run.result["test"]) == {"object"}
    assert "one domain only: no domain head" in run.result["notes"]


@pytest.mark.parametrize(("policy", "heads"), [("linear_probe", "dual"), ("lp_ft:1", "dual"), ("full", "separate")])
def test_the_validation_score_is_that_of_the_weights_that_are_kept(config, policy, heads):
    lines = []
    run = train(config(policy=policy, heads=heads, epochs=3), on_epoch=lines.append)
    by_network = {name: [line for line in lines if line.get("network", "") == name] for name in run.models}
    expected = {}
    for found in by_network.values():
        epochs = [line for line in found if "val_loss" in line and "head" not in line]
        best = max(epochs, key=lambda line: (np.mean(list(line["val"].values())), -line["val_loss"]))
        expected |= best["val"]
    assert run.result["validation"] == expected
    assert set(expected) == {"object", "domain"}


def test_without_validation_images_there_is_no_validation_score(config):
    assert train(config(val=0.0)).result["validation"] == {}


def test_a_head_without_weight_chooses_nothing(config):
    result = train(config(policy="full", epochs=1, loss_weights=("domain:0",))).result
    assert set(result["validation"]) == {"object"}
