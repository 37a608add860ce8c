"""The bundled weights themselves: what they are, and that they transfer."""

import json
import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from timm.models.resnet import BasicBlock, ResNet

from transfer.backbones.weight_paths import BUNDLE
from transfer.data.sets.digits import draw_digits
from transfer.data.sets.glyphs import LETTERS, PRETRAINING, SIZE, Pose, posed, template

STATE = load_file(BUNDLE / "glyphnet.safetensors")
RECORD = json.loads((BUNDLE / "glyphnet.json").read_text())


@pytest.fixture(scope="module")
def network():
    model = ResNet(BasicBlock, num_classes=RECORD["num_classes"], **RECORD["arch"])
    model.load_state_dict(STATE)
    return model.eval()


def prepared(images: np.ndarray) -> torch.Tensor:
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    return (x - torch.tensor(RECORD["mean"]).view(3, 1, 1)) / torch.tensor(RECORD["std"]).view(3, 1, 1)


def test_it_is_small_and_half_precision(network):
    assert (BUNDLE / "glyphnet.safetensors").stat().st_size < 2_000_000
    assert sum(p.numel() for p in network.parameters()) < 1_000_000
    assert all(v.dtype == torch.float16 and v.isfinite().all() for k, v in STATE.items() if "num_batches" not in k)


def test_its_record_and_card_are_honest():
    assert "not ImageNet-pretrained" in RECORD["note"]
    card = (BUNDLE / "README.md").read_text(encoding="utf-8")
    assert "not ImageNet-pretrained" in card.split("\n\n")[1].replace("*", "")
    assert RECORD["classes"] == list(LETTERS)
    assert RECORD["input_size"] == [3, SIZE, SIZE]
    assert RECORD["num_classes"] == len(LETTERS)


def test_it_reads_plain_letters(network):
    rng = np.random.default_rng(7)
    faces = [face for family in PRETRAINING.values() for face in family]
    labels = rng.integers(len(LETTERS), size=300)
    inks = [posed(template(faces[rng.integers(len(faces))], LETTERS[i]), Pose(), rng) for i in labels]
    images = np.uint8(255 - 255 * np.stack(inks))[..., None].repeat(3, -1)
    with torch.no_grad():
        right = network(prepared(images)).argmax(1).numpy() == labels
    assert right.mean() > 0.9


@pytest.mark.parametrize(("domain", "least"), [("printed", 0.93), ("scanned", 0.9)])
def test_ten_labels_a_class_suffice_on_its_features(network, domain, least):
    drawn = [(int(label), np.asarray(image)) for d, label, image in draw_digits() if d == domain]
    labels = np.array([label for label, _ in drawn])
    with torch.no_grad():
        maps = network.forward_features(prepared(np.stack([image for _, image in drawn])))
    assert maps.shape[1:] == (RECORD["arch"]["channels"][-1], math.ceil(SIZE / 32), math.ceil(SIZE / 32))
    features = maps.mean((2, 3)).numpy()
    features = (features - features.mean(0)) / features.std(0)
    few = np.concatenate([np.flatnonzero(labels == c)[:10] for c in range(10)])
    solver = LogisticRegression(C=0.1, max_iter=1000).fit(features[few], labels[few])
    rest = np.setdiff1d(np.arange(len(labels)), few)
    assert solver.score(features[rest], labels[rest]) > least
