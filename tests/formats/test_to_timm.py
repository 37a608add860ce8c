import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file
from timm.data import resolve_data_config

from transfer.config.commands import ExportConfig
from transfer.config.train import HeadConfig
from transfer.errors import TransferError
from transfer.formats import export


def normalised(network, images):
    config = resolve_data_config(model=network)
    mean, std = (torch.tensor(config[key]).view(3, 1, 1) for key in ("mean", "std"))
    return (images / 255 - mean) / std


def test_timm_loads_the_folder_and_predicts_the_same(saved, noise, own, tmp_path):
    run, out = saved("full"), tmp_path / "leaves"
    exported = export(ExportConfig(run, "timm", out))
    assert exported.difference <= 1e-4
    network = timm.create_model(f"local-dir:{out}", pretrained=True).eval()
    assert resolve_data_config(model=network)["input_size"] in ((3, 32, 32), [3, 32, 32])
    assert network.pretrained_cfg["label_names"] == ["blue", "green", "red"]
    assert not network.pretrained_cfg.get("license")
    x = normalised(network, noise)
    wanted = own(run, noise)
    np.testing.assert_allclose(network(x).softmax(1).detach(), wanted["object"], atol=1e-4)
    stock = timm.create_model("test_resnet", num_classes=3, checkpoint_path=out / "model.safetensors").eval()
    assert torch.equal(stock(x), network(x))
    beside = load_file(out / "heads" / "heads.safetensors")
    pooled = network.forward_head(network.forward_features(x), pre_logits=True)
    domain = pooled @ beside["domain.weight"].T + beside["domain.bias"]
    np.testing.assert_allclose(domain.softmax(1).detach(), wanted["domain"], atol=1e-4)


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({"separate": True}, "separate heads are 2 networks"),
        ({"policy": "truncate:1"}, "without its last stages"),
        ({"policy": "head2toe"}, "these heads read all stages"),
        ({"policy": "stage_probes"}, "these heads read all stages"),
        ({"heads": HeadConfig(heads="joint")}, "pairs of object and domain"),
        ({"heads": HeadConfig(hidden=(4,))}, "the object head is an MLP"),
    ],
)
def test_models_that_timm_cannot_express_are_refused(form, message, saved, tmp_path):
    with pytest.raises(TransferError, match=f"--format timm: .*{message}.*give --format onnx or torch_export"):
        export(ExportConfig(saved(**form), "timm", tmp_path / "out"))
    assert not (tmp_path / "out").exists()
