import json

import numpy as np
import pytest
import torch

from transfer.config.commands import ExportConfig
from transfer.config.train import HeadConfig
from transfer.formats import export

FORMS = {
    "probe": {},
    "inner cut": {"policy": "partial:2"},
    "full": {"policy": "full"},
    "truncated": {"policy": "truncate:1"},
    "truncated, with a tail": {"policy": "truncate:1+partial:1"},
    "all stages": {"policy": "head2toe"},
    "separate": {"separate": True},
    "joint": {"heads": HeadConfig(heads="joint")},
    "mlp": {"heads": HeadConfig(hidden=(8, 5), dropout=0.4, dropout_kind="vanilla", activation="gelu")},
    "drop connect": {"heads": HeadConfig(drop_connect=0.3)},
}


@pytest.mark.parametrize("form", FORMS)
def test_the_program_alone_predicts_as_the_run_does(form, saved, noise, own):
    run = saved(**FORMS[form])
    (file,) = export(ExportConfig(run, "torch_export")).files
    program = torch.export.load(file).module()
    for images in (noise, noise[:1]):  # any number of them
        with torch.no_grad():
            predicted = program(images)
        for name, wanted in own(run, images).items():
            np.testing.assert_allclose(predicted[f"{name}_probabilities"], wanted, atol=1e-4)
            np.testing.assert_allclose(predicted[f"{name}_logits"].softmax(1), wanted, atol=1e-4)


def test_classes_and_preprocessing_are_inside(saved, tmp_path):
    (file,) = export(ExportConfig(saved(), "torch_export", tmp_path / "elsewhere" / "model.pt2")).files
    inside = {"transfer.json": ""}
    torch.export.load(file, extra_files=inside)
    about = json.loads(inside["transfer.json"])
    assert about["heads"]["object"]["classes"] == ["blue", "green", "red"]
    assert about["preprocessing"]["input_size"] == [3, 32, 32]
    assert about["input"]["shape"] == ["batch", 3, 32, 32]
