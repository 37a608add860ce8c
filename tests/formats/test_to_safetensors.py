import json

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file
from torch import nn

from transfer.config.commands import ExportConfig
from transfer.config.train import HeadConfig
from transfer.formats import export


def by_hand(file, images, part=""):
    """The README's recipe without this library: timm, the tensors and the JSON file."""
    about = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
    tensors = {k.removeprefix(part): t for k, t in load_file(file).items() if k.startswith(part)}
    network = timm.create_model(about["backbone"], num_classes=0).eval()
    network.load_state_dict({k.removeprefix("backbone."): t for k, t in tensors.items() if k.startswith("backbone.")})
    mean, std = (torch.tensor(about["preprocessing"][key]).view(3, 1, 1) for key in ("mean", "std"))
    x = network((images / 255 - mean) / std)
    heads = about["networks"][part.rstrip(".")]["heads"]
    for i in range(heads["object"]["layers"]):
        x = x if i == 0 else getattr(nn, heads["object"]["activation"])()(x)
        x = nn.functional.linear(x, tensors[f"heads.object.{i}.weight"], tensors[f"heads.object.{i}.bias"])
    return x.softmax(1).detach().numpy()


@pytest.mark.parametrize(
    ("form", "part"), [({}, ""), ({"separate": True}, "object."), ({"heads": HeadConfig(hidden=(7,))}, "")]
)
def test_the_tensors_predict_the_same_without_this_library(form, part, saved, noise, own):
    run = saved(**form)
    exported = export(ExportConfig(run, "safetensors"))
    assert exported.difference is None
    np.testing.assert_allclose(by_hand(exported.files[0], noise, part), own(run, noise)["object"], atol=1e-4)


def test_the_modules_that_heads_read_are_named(saved):
    def features(policy):
        file = export(ExportConfig(saved(policy), "safetensors")).files[1]
        (network,) = json.loads(file.read_text(encoding="utf-8"))["networks"].values()
        return [part["module"] for part in network["features"]], network["rounded_to_float16"]

    assert features("linear_probe") == ([""], "")
    assert features("partial:1") == ([""], "layer3")
    assert features("truncate:1") == (["layer3"], "")
    assert features("head2toe")[0][-2:] == ["layer3", ""]
