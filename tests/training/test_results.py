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
