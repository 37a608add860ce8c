import json
import sys

import numpy as np
import pytest

from transfer.config.commands import ExportConfig
from transfer.errors import TransferError
from transfer.formats import export

ROUNDING = 1e-3  # OpenVINO leaves out the cast to float16 and back between frozen and trained layers


def test_openvino_predicts_as_the_run_does(saved, noise, own):
    openvino = pytest.importorskip("openvino", reason="needs the extra 'openvino'")
    run = saved("partial:2")
    exported = export(ExportConfig(run, "openvino"))
    assert exported.files == [run.parent / "run.xml", run.parent / "run.bin"]
    assert exported.difference <= ROUNDING
    model = openvino.Core().read_model(exported.files[0])
    about = json.loads(model.get_rt_info("transfer").astype(str))
    assert about["heads"]["object"]["classes"] == ["blue", "green", "red"]
    compiled = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for images in (noise, noise[:1]):
        found = {port.any_name: values for port, values in compiled({"images": images.numpy()}).items()}
        for name, wanted in own(run, images).items():
            np.testing.assert_allclose(found[f"{name}_probabilities"], wanted, atol=ROUNDING)


def test_another_suffix_is_refused_before_anything_is_read(tmp_path):
    with pytest.raises(TransferError, match=r"OpenVINO reads \.xml files"):
        export(ExportConfig(tmp_path / "no run", "openvino", tmp_path / "model.onnx"))


def test_a_missing_package_is_named(saved, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(TransferError, match=r"--format openvino needs openvino .*'transfer-toolkit\[openvino\]'"):
        export(ExportConfig(saved(), "openvino"))
