import json
import sys
import zipfile
from dataclasses import replace
from types import ModuleType, SimpleNamespace

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

REASON = "needs litert-torch, 1 GB of packages that no extra installs: see Phones in transfer/formats/README.md"
FORMS = {
    "probe": {},
    "inner cut": {"policy": "partial:2"},
    "full": {"policy": "full"},
    "truncated": {"policy": "truncate:1"},
    "all stages": {"policy": "head2toe"},
    "separate": {"separate": True},
    "joint": {"heads": HeadConfig(heads="joint")},
    "mlp": {"heads": HeadConfig(hidden=(8, 5), dropout=0.4, dropout_kind="vanilla", activation="gelu")},
}


def run_alone(file, images):
    """Return the outputs of a .tflite file by name, for uint8 images (N, 3, H, W), without the package."""
    interpreter = pytest.importorskip("ai_edge_litert.interpreter", reason=REASON)
    run = interpreter.Interpreter(str(file)).get_signature_runner()
    each = [run(images=image.numpy().transpose(1, 2, 0)[None]) for image in images]
    return {name: np.concatenate([outputs[name] for outputs in each]) for name in each[0]}


@pytest.mark.parametrize("form", FORMS)
def test_the_file_alone_predicts_as_the_run_does(form, saved, noise, own):
    pytest.importorskip("litert_torch", reason=REASON)
    run = saved(**FORMS[form])
    exported = export(ExportConfig(run, "litert"))
    assert exported.files == [run.parent / "run.tflite"]
    assert exported.difference <= 1e-4
    found = run_alone(exported.files[0], noise)
    for name, wanted in own(run, noise).items():
        np.testing.assert_allclose(found[f"{name}_probabilities"], wanted, atol=1e-4)
        e = np.exp(found[f"{name}_logits"])
        np.testing.assert_allclose(e / e.sum(1, keepdims=True), wanted, atol=1e-4)


def test_input_and_description(saved, tmp_path):
    interpreter = pytest.importorskip("ai_edge_litert.interpreter", reason=REASON)
    (file,) = export(ExportConfig(saved(), "litert", tmp_path / "elsewhere" / "model.tflite")).files
    (given,) = interpreter.Interpreter(str(file)).get_input_details()
    assert (given["shape"].tolist(), given["dtype"]) == ([1, 32, 32, 3], np.uint8)
    about = json.loads(zipfile.ZipFile(file).read("transfer.json"))
    assert about["heads"]["object"]["classes"] == ["blue", "green", "red"]
    assert about["input"]["shape"] == [1, 32, 32, 3]
    assert about["preprocessing"]["input_size"] == [3, 32, 32]


def test_the_converter_prints_nothing(saved, capfd):
    pytest.importorskip("litert_torch", reason=REASON)
    export(ExportConfig(saved(), "litert"))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", list(UNKNOWN_SCORES))
def test_prediction_sets_and_unknown_scores_are_outputs(name, saved, noise, own):
    pytest.importorskip("litert_torch", reason=REASON)
    run = saved()
    features, outputs = checkpoint.load_models(run)[""].compute(noise)
    unknown = UnknownScore.fitted(name, torch.cat([features + 0.1, features - 0.1]), torch.tensor([0, 1, 2, 0, 1, 2]))
    reference = unknown.compute(features, outputs["object"]).sort().values
    unknown = replace(unknown, reference=(reference[1:] + reference[:-1]) / 2)
    sets = PredictionSets(np.array([0.3, 0.5, 0.62]), np.array([0, 1, 2]), 3)
    Uncertainty({"object": sets}, "held out", unknown).save(run)
    (file,) = export(ExportConfig(run, "litert", coverage=0.75, unknown=True)).files
    found = run_alone(file, noise)
    np.testing.assert_array_equal(found["object_set"], sets.predict_sets(own(run, noise)["object"].astype(float), 0.75))
    assert sorted(found["object_unknown"].tolist()) == [0.0, 0.5, 1.0]


def test_a_missing_package_is_named(saved, monkeypatch):
    monkeypatch.setitem(sys.modules, "litert_torch", None)
    with pytest.raises(TransferError, match=r"--format litert needs litert-torch .*: pip install litert-torch torch"):
        export(ExportConfig(saved(), "litert"))


def test_a_network_that_is_not_converted_is_one_line(saved, monkeypatch, tmp_path):
    def convert(*args, **options):
        raise RuntimeError("no lowering of aten.roll\nTraceback of many lines")

    package = ModuleType("ai_edge_litert")
    package.interpreter = SimpleNamespace(Interpreter=None)
    monkeypatch.setitem(sys.modules, "ai_edge_litert", package)
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", package.interpreter)
    monkeypatch.setitem(sys.modules, "litert_torch", SimpleNamespace(convert=convert))
    with pytest.raises(TransferError, match=r"cannot convert test_resnet\S* \(no lowering of aten.roll\); phones run"):
        export(ExportConfig(saved(), "litert", tmp_path / "model.tflite"))
    assert not (tmp_path / "model.tflite").exists()
