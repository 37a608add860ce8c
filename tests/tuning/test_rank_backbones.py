"""The order of backbones by a cross-validated probe: paired errors, hidden labels, cached features, photographs."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from transfer.advice.requirements import LINEAR_PROBE
from transfer.advice.transferability.crossval import score_held_out
from transfer.config.train import BackboneConfig, DataConfig, RunConfig, TrainConfig
from transfer.data.splits import mask_labels
from transfer.errors import TransferError
from transfer.feature_cache import TrunkCache
from transfer.heads.metrics import Z_95
from transfer.training.auto_policy import advise_policy
from transfer.training.setup import read_images, split_images
from transfer.tuning.rank_backbones import RatedBackbone, compute_probe_features, order_backbones, rank_backbones

NAMES = ("test_resnet", "glyphnet")
FLOWERS = Path(os.environ.get("TRANSFER_DATA", "/work/shared/data")) / "flowers12"


@pytest.fixture
def ranking(config):
    """Return a function that ranks two networks, after a change of the images."""

    def rank(change=lambda images, parts: images, **options):
        given = config(**options)
        images = read_images(given.data)
        parts = split_images(images, given.data, given.run.seed)
        candidates = {name: replace(given.backbone, backbone=name) for name in NAMES}
        return rank_backbones(given, candidates, change(images, parts), parts, TrunkCache(given.cache))

    return rank


def rate(name, predictions, labels, sure=0.9):
    """Return a backbone whose probe predicts `predictions` with the probability `sure`."""
    probabilities = np.full((len(labels), 3), (1 - sure) / 2)
    probabilities[np.arange(len(labels)), predictions] = sure
    return RatedBackbone(name, score_held_out(probabilities, labels, np.arange(len(labels)) % 5), 0.0)


def test_accuracy_decides_then_loss_and_the_difference_is_paired():
    labels = np.arange(30) % 3
    wrong = {n: np.where(np.arange(30) < n, (labels + 1) % 3, labels) for n in (2, 5)}
    rated = [rate("five", wrong[5], labels), rate("unsure", wrong[2], labels, 0.6), rate("sure", wrong[2], labels)]
    rows = order_backbones(rated, labels)
    assert [row["name"] for row in rows] == ["sure", "unsure", "five"]
    assert [row["behind"] for row in rows] == pytest.approx([0, 0, 3 / 30])
    # Three images differ, and one is added: never proved equal.
    assert [row["error"] for row in rows] == pytest.approx([0, Z_95 / 30, Z_95 * 2 / 30])
    assert rows[0]["interval"][0] < rows[0]["linear_probe"] == 28 / 30 < rows[0]["interval"][1]


def test_a_row_has_the_probe_that_the_advice_on_this_backbone_has(config, ranking):
    """The features are computed by another graph, so that their last bits may differ."""
    given = config(backbone="glyphnet")
    images = read_images(given.data)
    found = advise_policy(given, images, split_images(images, given.data, 0), TrunkCache(given.cache)).evidence
    (row,) = (row for row in ranking() if row["name"] == "glyphnet")
    assert row["linear_probe"] == pytest.approx(found.probes[LINEAR_PROBE].accuracy, abs=1 / len(found.labels))
    assert row["loss"] == pytest.approx(found.probes[LINEAR_PROBE].loss, rel=1e-2)
    assert row["logme"] == pytest.approx(found.transferability.logme, rel=1e-3)


def test_test_labels_have_no_part_in_it(ranking):
    def scramble(images, parts):
        table = images.table
        target = table.targets["object"]
        values = target.values.copy()
        values[parts.test] = np.roll(values[parts.test], 1)
        return replace(images, table=replace(table, targets=table.targets | {"object": replace(target, values=values)}))

    assert ranking() == ranking(scramble) == ranking(lambda images, parts: images.hide(parts.test))


def test_fewer_labels_are_used_as_asked(ranking):
    """Of 3 objects in 2 domains, 2 labels each: 12 images, 1.96 standard errors of at least one of them."""
    rows = ranking(shots=2)
    assert {row["linear_probe"] * 12 % 1 for row in rows} == {0.0}
    assert rows[1]["error"] >= Z_95 / 12 - 1e-9


def test_features_are_those_that_the_linear_probe_caches(config, tmp_path, monkeypatch):
    """Nothing runs twice: once a ranking has been made, all training images are cached for `linear_probe`."""
    monkeypatch.setenv("TRANSFER_CACHE", str(tmp_path))
    given = config(backbone="glyphnet")
    images, cache = read_images(given.data), TrunkCache(given.cache)
    parts = split_images(images, given.data, 0)
    rows = np.sort(np.concatenate([parts.train, parts.val]))
    first = compute_probe_features(given, images, parts, rows, cache)
    spent = cache.seconds
    assert spent > 0
    np.testing.assert_array_equal(compute_probe_features(given, images, parts, rows, cache), first)
    assert cache.seconds == spent


def test_labels_of_one_object_are_too_few(ranking):
    def hide_all_but_one(images, parts):
        return replace(images, table=mask_labels(images.table, np.flatnonzero(images.table.object > 0)))

    with pytest.raises(TransferError, match="labelled training images of two classes"):
        ranking(hide_all_but_one)


@pytest.mark.skipif(not FLOWERS.is_dir(), reason="needs the photographs of flowers12 (TRANSFER_DATA)")
def test_photographs_are_for_a_network_of_photographs_and_digits_for_one_of_letters():
    """Kendall's tau is measured in recipes/backbone_ranking.py; this is its clearest case, at 5 labels a class."""
    first = {}
    for data in (str(FLOWERS), "digits"):
        given = TrainConfig(DataConfig(data, shots=5), run=RunConfig(seed=0))
        images = read_images(given.data)
        parts = split_images(images, given.data, 0)
        candidates = {name: BackboneConfig(name) for name in ("glyphnet", "tf_efficientnet_lite0")}
        rows = rank_backbones(given, candidates, images, parts, TrunkCache(given.cache))
        assert rows[1]["behind"] > rows[1]["error"]
        first[Path(data).name] = rows[0]["name"]
    assert first == {"flowers12": "tf_efficientnet_lite0", "digits": "glyphnet"}
