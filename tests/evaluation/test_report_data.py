import base64
import io
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from model_states import changed_names, copy_state
from PIL import Image

from transfer.data.table import Target
from transfer.evaluation import report_data as module
from transfer.evaluation.report_data import (
    MISTAKES_SHOWN,
    SAMPLE_SHOWN,
    InitialWeights,
    choose_galleries,
    features_before_and_after,
)
from transfer.training.train import train


def answered(test, rng):
    """Probabilities of objects and domains, some wrong."""
    return {name: rng.dirichlet(np.ones(len(test.targets[name].classes)), len(test)) for name in ("object", "domain")}


def test_galleries_show_the_most_confident_mistakes_and_the_least_confident_hits(images):
    predictions = answered(images, np.random.default_rng(0))
    unknown = images.object.copy()
    unknown[::5] = -1
    test = replace(images, targets=images.targets | {"object": Target(unknown, "softmax", images.objects)})
    galleries = choose_galleries(test, predictions)
    for name, true in (("object", unknown), ("domain", images.domain)):
        p = predictions[name]
        wrong = [i for i in range(len(p)) if true[i] >= 0 and p[i].argmax() != true[i]]
        right = [i for i in range(len(p)) if p[i].argmax() == true[i]]
        assert galleries[f"{name} mistakes"] == sorted(wrong, key=lambda i: -p[i].max())[:MISTAKES_SHOWN]
        assert sorted(galleries[f"{name} hits"]) == sorted(sorted(right, key=lambda i: p[i].max())[:8])
    assert len(set(galleries["sample"])) == SAMPLE_SHOWN
    assert galleries["explained"][:4] == galleries["object mistakes"][:4]


@pytest.mark.parametrize("policy", ["linear_probe", "partial:1", "lp_ft"])
def test_a_run_saves_its_report_data(config, tmp_path, policy):
    out = tmp_path / "run"
    run = train(config(policy=policy, out=out))
    found = json.loads((out / "exhibits.json").read_text())
    n = run.result["images"]["test"]
    frozen = policy == "linear_probe"
    assert [len(state["places"]) for state in found["map"]["states"]] == [n] * (1 if frozen else 2)
    rows = {str(row) for some in found["galleries"].values() for row in some}
    assert rows == set(found["pictures"])
    for picture in found["pictures"].values():
        assert Image.open(io.BytesIO(base64.b64decode(picture["jpeg"]))).size == (32, 32)
        assert [len(picture["top"][head]) for head in ("object", "domain")] == [3, 2]
    assert set(found["explained"]) == {str(row) for row in found["galleries"]["explained"]}
    test, predictions = run.tests[0]
    for row, heats in found["explained"].items():
        right = predictions["object"][int(row)].argmax() == test.object[int(row)]
        assert set(heats) == ({"answer"} if right else {"answer", "truth"})
    assert found["map"]["names"] == {"objects": list(test.objects), "domains": list(test.domains)}
    stages = run.result["policy"]["phases"][-1]["stages"]
    assert sum(stage["parameters"] for stage in stages) == sum(p.numel() for p in run.models[""].backbone.parameters())


def test_only_the_first_seed_has_report_data_and_only_on_request(config, tmp_path):
    train(config(out=tmp_path / "seeds", seeds=(0, 1)))
    assert (tmp_path / "seeds" / "exhibits.json").is_file()
    assert (tmp_path / "seeds" / "seed0" / "exhibits.json").is_file()
    assert not (tmp_path / "seeds" / "seed1" / "exhibits.json").exists()
    plain, reported = (train(config(out=tmp_path / str(report), report=report)) for report in (False, True))
    assert not (tmp_path / "False" / "exhibits.json").exists()
    assert plain.result["test"] == reported.result["test"]  # the report changes nothing
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("False", "True")]
    assert weights[0] == weights[1]


def test_features_before_training_are_those_of_the_initial_weights(taught, images, digests, monkeypatch):
    from transfer.feature_cache import TrunkCache

    model, plan = taught("partial:1")
    model.freeze(plan.phases[-1])
    feed = TrunkCache().feed(model, images.paths, digests, batch_size=8, workers=1)
    start = InitialWeights(model, plan)
    rows = np.arange(0, len(images), 4)
    own = module._features(model, feed, rows)
    with torch.no_grad():
        for name, parameter in model.backbone.network.named_parameters():
            if name in start.weights:
                parameter.add_(0.05)
    trained = copy_state(model)
    monkeypatch.setattr(module, "MAX_MAPPED_IMAGES", 7)
    before, after = features_before_and_after(start, model, feed, images, rows)
    assert before.features.shape == (7, model.backbone.width)
    picked = np.sort(np.random.default_rng(0).permutation(rows)[:7])
    np.testing.assert_array_equal(before.features, own[np.searchsorted(rows, picked)])
    assert not np.allclose(before.features, after.features)
    assert not changed_names(trained, model.state_dict())
    assert before.objects.tolist() == images.object[picked].tolist()
