import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from transfer.config.commands import ExportConfig
from transfer.config.train import HeadConfig
from transfer.errors import TransferError
from transfer.evaluation.uncertainty.conformal import PredictionSets
from transfer.evaluation.uncertainty.record import Uncertainty
from transfer.evaluation.uncertainty.unknown import UNKNOWN_SCORES, UnknownScore
from transfer.formats import export
from transfer.runs import checkpoint
from transfer.runs.folder import UNCERTAINTY_FILE

FORMS = {
    "separate": {"separate": True},
    "joint": {"heads": HeadConfig(heads="joint")},
    "mlp": {"heads": HeadConfig(hidden=(8,), activation="gelu")},
    "truncated": {"policy": "truncate:1"},
    "all stages": {"policy": "head2toe"},
    "several stages": {"policy": "stage_probes"},
    "full": {"policy": "full"},
}


def proven(run, noise, own):
    runtime = pytest.importorskip("onnxruntime")
    exported = export(ExportConfig(run))
    assert exported.difference <= 1e-4
    session = runtime.InferenceSession(exported.files[0].read_bytes(), providers=["CPUExecutionProvider"])
    for images in (noise, noise[:1]):
        names = [output.name for output in session.get_outputs()]
        predicted = dict(zip(names, session.run(names, {"images": images.numpy()}), strict=True))
        for name, wanted in own(run, images).items():
            np.testing.assert_allclose(predicted[f"{name}_probabilities"], wanted, atol=1e-4)
            e = np.exp(predicted[f"{name}_logits"])
            np.testing.assert_allclose(e / e.sum(1, keepdims=True), wanted, atol=1e-4)
    return session


def test_a_runtime_predicts_as_the_run_does(saved, noise, own):
    session = proven(saved("partial:2"), noise, own)
    (given,) = session.get_inputs()
    assert (given.name, given.type, given.shape) == ("images", "tensor(uint8)", ["batch", 3, 32, 32])
    assert [o.shape[0] for o in session.get_outputs()] == ["batch"] * 4
    inside = session.get_modelmeta().custom_metadata_map
    assert json.loads(inside["classes"]) == {"object": ["blue", "green", "red"], "domain": ["plain", "striped"]}
    assert json.loads(inside["preprocessing"])["input_size"] == [3, 32, 32]
    assert "backbone" in json.loads(inside["transfer"])


def test_prediction_sets_are_outputs(saved, noise, own):
    run = saved()
    sets = PredictionSets(np.array([0.3, 0.5, 0.62]), np.array([0, 1, 2]), 3)
    Uncertainty({"object": sets}, "held out").save(run)
    runtime = pytest.importorskip("onnxruntime")
    exported = export(ExportConfig(run, coverage=0.75))
    session = runtime.InferenceSession(exported.files[0].read_bytes(), providers=["CPUExecutionProvider"])
    assert [o.name for o in session.get_outputs() if o.name.endswith("_set")] == ["object_set"]
    (found,) = session.run(["object_set"], {"images": noise.numpy()})
    np.testing.assert_array_equal(found, sets.predict_sets(own(run, noise)["object"].astype(float), 0.75))
    about = json.loads(session.get_modelmeta().custom_metadata_map["transfer"])["prediction_sets"]
    assert about["coverage"] == 0.75
    np.testing.assert_allclose(about["least_probability"]["object"], [0.38] * 3, atol=1e-6)
    (run / UNCERTAINTY_FILE).unlink()
    with pytest.raises(TransferError, match="which prediction sets and unknown scores need"):
        export(ExportConfig(run, coverage=0.75))


@pytest.mark.parametrize("name", list(UNKNOWN_SCORES))
def test_the_unknown_score_is_an_output(name, saved, noise):
    run = saved()
    model = checkpoint.load_models(run)[""]
    features, outputs = model.compute(noise)
    unknown = UnknownScore.fitted(name, torch.cat([features + 0.1, features - 0.1]), torch.tensor([0, 1, 2, 0, 1, 2]))
    reference = unknown.compute(features, outputs["object"]).sort().values
    unknown = replace(unknown, reference=(reference[1:] + reference[:-1]) / 2)
    sets = PredictionSets(np.array([0.3]), np.array([0]), 3)
    Uncertainty({"object": sets}, "held out", unknown).save(run)
    runtime = pytest.importorskip("onnxruntime")
    exported = export(ExportConfig(run, unknown=True))
    session = runtime.InferenceSession(exported.files[0].read_bytes(), providers=["CPUExecutionProvider"])
    (found,) = session.run(["object_unknown"], {"images": noise.numpy()})
    assert sorted(found.tolist()) == [0.0, 0.5, 1.0]
    np.testing.assert_array_equal(found, unknown.rate(features, outputs["object"]).numpy())
    about = json.loads(session.get_modelmeta().custom_metadata_map["transfer"])["unknown"]
    assert about == {"output": "object_unknown", "score": name}


def test_a_run_without_an_unknown_score_exports_none(saved):
    run = saved()
    Uncertainty({"object": PredictionSets(np.array([0.3]), np.array([0]), 3)}, "held out").save(run)
    with pytest.raises(TransferError, match="has no unknown score"):
        export(ExportConfig(run, unknown=True))
    with pytest.raises(TransferError, match="--format safetensors has weights alone"):
        export(ExportConfig(run, "safetensors", unknown=True))


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_exported(form, saved, noise, own):
    proven(saved(**FORMS[form]), noise, own)


def test_a_missing_package_is_named(saved, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(TransferError, match=r"needs onnx, onnxscript .* pip install 'transfer-toolkit\[export\]'"):
        export(ExportConfig(saved()))
