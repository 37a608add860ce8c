"""What an int8 trunk costs, beside a naive count on both sets of features."""

import numpy as np
import torch

from transfer.evaluation.int8_trunk import compare_trunks
from transfer.feature_cache import TrunkCache
from transfer.training.train import train


def test_the_figures_are_those_of_a_naive_count(config, images, digests):
    run = train(config(engine="int8"))
    model, rows, cache = run.models[""], np.arange(0, 20), TrunkCache()
    found = compare_trunks(model, cache, images, digests, rows)
    features, scores = {}, {}
    for engine in ("int8", "onnxruntime"):
        model.backbone.engine = engine
        with torch.inference_mode():
            feed = cache.feed(model, images.paths, digests, batch_size=7)
            features[engine] = torch.cat([activation for _, activation in feed.batches(rows)])
            classes = model.heads(features[engine])["object"].argmax(1).numpy()
        scores[engine] = np.mean(classes == images.object[rows])
    difference = (features["int8"] - features["onnxruntime"]).norm(dim=1) / features["onnxruntime"].norm(dim=1)
    assert np.isclose(found.error, float(difference.mean()))
    assert found.scores["object"] == {"int8": scores["int8"], "float32": scores["onnxruntime"]}
    assert found.n == 20
    assert found.speed == found.seconds["float32"] / found.seconds["int8"]
    assert f"int8 trunk: {found.speed:.2f} times the images/s of float32" in found.describe_speed()
    assert compare_trunks(model, cache, images, digests, rows) is None  # of a float32 trunk
    model.backbone.engine = "int8"
    assert compare_trunks(model, cache, images, digests, rows[:0]) is None


def test_a_run_has_them_in_its_result_and_notes(config):
    result = train(config(engine="int8", policy="partial:1")).result
    (compared,) = result["int8"].values()
    assert compared["n"] == result["images"]["val"]
    assert compared["calibrated_on"] == result["images"]["train"]
    assert compared["scores"].keys() == {"object", "domain"}
    (note,) = (note for note in result["notes"] if note.startswith("int8 trunk: object "))
    assert note.endswith(
        f"features differ by {compared['error']:.1%} (calibrated on {compared['calibrated_on']} images)"
    )
    assert compared["seconds"].keys() == {"int8", "float32"}
    assert "int8" not in train(config(engine="onnxruntime")).result


def test_without_frozen_layers_a_note_says_that_it_has_no_effect(config):
    result = train(config(engine="int8", policy="full", epochs=1)).result
    assert "--engine int8 has no effect: no layers stay frozen" in result["notes"]
    assert "int8" not in result
