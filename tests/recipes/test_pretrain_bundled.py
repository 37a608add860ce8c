import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from timm.models.resnet import BasicBlock, ResNet

from transfer.data.sets import glyphs

FILE = Path(__file__).parents[2] / "recipes" / "pretrain_bundled.py"


@pytest.fixture(scope="module")
def recipe():
    spec = importlib.util.spec_from_file_location("pretrain_bundled", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_no_digit_no_font_and_no_photograph_of_the_embedded_set_is_seen(recipe, monkeypatch):
    drawn, halves = set(), set()
    template, photo_patch = glyphs.template, glyphs.photo_patch
    monkeypatch.setattr(glyphs, "template", lambda face, c: drawn.add((face, c)) or template(face, c))
    monkeypatch.setattr(glyphs, "photo_patch", lambda rng, half: halves.add(half) or photo_patch(rng, half))
    labels = {recipe.letter(index, 0)[1] for index in range(1500)}
    assert {c for _, c in drawn} == set(glyphs.LETTERS)
    assert labels == set(range(len(glyphs.LETTERS)))
    assert not any(c.isdigit() for _, c in drawn)
    assert {face for face, _ in drawn} == {f for family in glyphs.PRETRAINING.values() for f in family}
    assert not {face for face, _ in drawn} & {f for family in glyphs.PRINTED.values() for f in family}
    assert halves == {"left"}


def test_a_letter_follows_from_its_number_and_seed(recipe):
    one, other, another = (recipe.letter(5, seed)[0] for seed in (0, 0, 1))
    assert np.array_equal(one, other)
    assert not np.array_equal(one, another)


def test_a_tiny_run_writes_weights_and_their_record(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "set_num_threads", lambda n: None)  # keep the setting of the other tests
    written = []
    for name in "ab":
        out = tmp_path / name
        recipe.pretrain(recipe.Options(out=out, images=128, batch_size=32, workers=0))
        written.append([(out / f"glyphnet.{kind}").read_bytes() for kind in ("safetensors", "json")])
    assert written[0] == written[1]
    state, record = load_file(out / "glyphnet.safetensors"), json.loads(written[0][1])
    assert {v.dtype for v in state.values()} == {torch.float16, torch.int64}
    model = ResNet(BasicBlock, num_classes=record["num_classes"], **record["arch"])
    model.load_state_dict(state)
    assert record["classes"] == list(glyphs.LETTERS)
    assert record["input_size"] == [3, glyphs.SIZE, glyphs.SIZE]
    with torch.no_grad():
        assert torch.isfinite(model.eval()(torch.zeros(1, *record["input_size"]))).all()


def test_prepared_is_the_preprocessing_that_the_record_gives(recipe):
    images = torch.randint(0, 256, (2, 4, 5, 3), dtype=torch.uint8)
    x = recipe.prepared(images)
    assert x.shape == (2, 3, 4, 5)
    assert x[1, 2, 3, 4].item() == pytest.approx((images[1, 3, 4, 2].item() / 255 - 0.5) / 0.25, abs=1e-6)


def test_few_labels_of_each_cell(recipe):
    cells = np.random.default_rng(0).permutation(np.repeat(["a", "b", "c"], (5, 9, 30)))
    chosen = recipe.few_labels(cells, 5, seed=3)
    assert [sum(c == cell for c in cells[chosen]) for cell in "abc"] == [5, 5, 5]
    assert not np.array_equal(chosen, recipe.few_labels(cells, 5, seed=4))


def test_augmentation_moves_a_little(recipe):
    torch.manual_seed(0)
    dot = torch.zeros(64, 1, 41, 41)
    dot[:, :, 19:22, 19:22] = 1
    found = recipe.augment_images(dot)
    assert found.shape == dot.shape
    rows, columns = np.nonzero(found.sum((0, 1)).numpy())
    assert 3 <= np.abs(rows - 20).max() <= 9  # a tenth of the side, enlarged by at most 1 / 0.85
    assert 3 <= np.abs(columns - 20).max() <= 9
    assert found[0].ne(found[1]).any()
