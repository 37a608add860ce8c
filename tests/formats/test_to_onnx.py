import json
import sys

import numpy as np
import pytest

from transfer.config.commands import ExportConfig
from transfer.config.train import HeadConfig
from transfer.errors import TransferError
from transfer.formats import export

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


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_exported(form, saved, noise, own):
    proven(saved(**FORMS[form]), noise, own)


def test_a_missing_package_is_named(saved, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(TransferError, match=r"needs onnx, onnxscript .* pip install 'transfer-toolkit\[export\]'"):
        export(ExportConfig(saved()))
