"""The order of backbones by a cross-validated probe: paired errors, hidden labels, cached features, photographs."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

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
FLOWERS = Path(__file__).parents[3] / "shared" / "data" / "flowers12"


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


LABELS = np.arange(100) % 3


def rate(name, errors, logme=0.0, sure=0.9):
    """Return a backbone whose probe is wrong on the first `errors` of 100 images, with the probability `sure`."""
    predictions = np.where(np.arange(100) < errors, (LABELS + 1) % 3, LABELS)
    probabilities = np.full((100, 3), (1 - sure) / 2)
    probabilities[np.arange(100), predictions] = sure
    return RatedBackbone(name, score_held_out(probabilities, LABELS, np.arange(100) % 5), logme)


def test_differences_are_paired_and_from_the_most_accurate():
    rows = order_backbones([rate("five", 5), rate("unsure", 2, sure=0.6), rate("sure", 2)], LABELS)
    assert [row["name"] for row in rows] == ["sure", "unsure", "five"]  # with equal LogME by accuracy, then by loss
    assert [row["behind"] for row in rows] == pytest.approx([0, 0, 0.03])
    # Three images differ, and one is added: never proved equal.
    assert [row["error"] for row in rows] == pytest.approx([0, Z_95 * 0.01, Z_95 * 0.02])
    assert rows[0]["interval"][0] < rows[0]["linear_probe"] == 0.98 < rows[0]["interval"][1]


def test_logme_decides_within_the_error_and_accuracy_beyond_it():
    """Of k more errors in 100 images the error is 1.96 sqrt(k + 1) points: 4.4 for 4, which hides them; 6.2 for 9."""
    rated = [rate("best", 2, 0.1), rate("near", 6, 0.2), rate("far", 11, 0.9), rate("farthest", 40, 1.0)]
    rows = order_backbones(rated, LABELS)
    # "far" has a higher LogME than both, and is not significantly behind "near", but behind "best".
    assert [row["name"] for row in rows] == ["near", "best", "far", "farthest"]
    assert [row["behind"] for row in rows] == pytest.approx([0.04, 0, 0.09, 0.38])
    assert rows[0]["error"] == pytest.approx(Z_95 * np.sqrt(5) / 100)


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 3)), min_size=1, max_size=6))
def test_none_is_before_one_that_is_significantly_more_accurate(networks):
    rated = {str(i): rate(str(i), errors, logme) for i, (errors, logme) in enumerate(networks)}
    names = [row["name"] for row in order_backbones(list(rated.values()), LABELS)]
    assert sorted(names) == sorted(rated)
    for place, name in enumerate(names):
        errors, logme = networks[int(name)]
        rest = [networks[int(other)] for other in names[place:]]
        fewest = min(wrong for wrong, _ in rest)
        near = [score for wrong, score in rest if wrong - fewest <= Z_95 * np.sqrt(wrong - fewest + 1)]
        assert errors - fewest <= Z_95 * np.sqrt(errors - fewest + 1)
        assert logme == max(near)


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
    assert max(row["error"] for row in rows) >= Z_95 / 12 - 1e-9


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


@pytest.mark.skipif(not FLOWERS.is_dir(), reason="needs shared/ with flowers12 beside the checkout")
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
