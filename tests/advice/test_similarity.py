from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from transfer.advice.observe import NetworkObservations, NormStatistics, observe
from transfer.advice.similarity import (
    Similarity,
    classify_similarity,
    compare_stages,
    measure_norm_distance,
    measure_predicted_variety,
    measure_similarity,
)
from transfer.backbones import load
from transfer.config.train import CacheConfig
from transfer.data.duplicates import inspect_files
from transfer.data.folders import read_folder
from transfer.disk_cache import DiskCache
from transfer.feature_cache import TrunkCache

SHARED = Path(__file__).parents[3] / "shared"
real = pytest.mark.skipif(not SHARED.is_dir(), reason="no shared data and weights beside the checkout")


def _norm(places, running_mean, running_var):
    """places (N, P, C): the inputs of a norm at each position of each image."""
    return NormStatistics(places.mean(1), (places**2).mean(1), np.asarray(running_mean), np.asarray(running_var))


def test_norm_distance_is_the_divergence_of_gaussians():
    rng = np.random.default_rng(0)
    places = rng.normal([0.0, 1.0, -2.0], [1.0, 2.0, 0.5], (40, 25, 3))
    kept_mean, kept_var = [0.5, 1.0, 0.0], [1.0, 1.0, 4.0]
    each = []
    for c in range(3):
        m, v = places[..., c].mean(), places[..., c].var()
        # KL(N(m, v) || N(m0, v0)) by integration
        x = np.linspace(m - 12 * v**0.5, m + 12 * v**0.5, 200_001)
        log_p = -0.5 * ((x - m) ** 2 / v + np.log(2 * np.pi * v))
        log_q = -0.5 * ((x - kept_mean[c]) ** 2 / kept_var[c] + np.log(2 * np.pi * kept_var[c]))
        each.append(np.sum(np.exp(log_p) * (log_p - log_q)) * (x[1] - x[0]))
    assert measure_norm_distance(_norm(places, kept_mean, kept_var)) == pytest.approx(np.median(each), rel=1e-4)


def test_pretraining_statistics_have_no_distance_and_constants_are_finite():
    places = np.random.default_rng(0).normal(3.0, 2.0, (200, 50, 4))
    assert measure_norm_distance(_norm(places, [3.0] * 4, [4.0] * 4)) < 1e-3
    assert np.isfinite(measure_norm_distance(_norm(np.zeros((5, 5, 2)), [0.0] * 2, [0.0] * 2)))


def test_predicted_variety_is_a_share_of_its_maximum():
    sure = np.eye(4)[np.arange(4000) % 4]
    assert measure_predicted_variety(sure) == pytest.approx(1.0, abs=1e-2)
    assert measure_predicted_variety(np.full((100, 4), 0.25)) == 0.0
    half = np.repeat(np.eye(2)[np.arange(4000) % 2], 2, 1) / 2  # one bit of two
    assert measure_predicted_variety(half) == pytest.approx(0.5, abs=1e-2)


def _observed(norms, probabilities):
    return NetworkObservations({}, norms, probabilities)


@given(st.floats(0, 3), st.floats(0, 3))
def test_farther_is_never_more_similar(one, other):
    near, far = sorted((one, other))
    scores = []
    for shift in (near, far):
        places = np.random.default_rng(0).normal(shift, 1.0, (20, 20, 3))
        scores.append(measure_similarity(_observed({"top": _norm(places, [0.0] * 3, [1.0] * 3)}, None)).score)
    assert 0 <= scores[1] <= scores[0] <= 1


def test_both_measures_count_and_without_any_it_is_between():
    places = np.random.default_rng(0).normal(0.0, 1.0, (100, 40, 3))
    norm = _norm(places, [0.0] * 3, [1.0] * 3)
    sure, unsure = np.eye(50)[np.arange(1000) % 50], np.full((1000, 50), 0.02)
    assert measure_similarity(_observed({"top": norm}, sure)).score == 1.0
    assert measure_similarity(_observed({"top": norm}, unsure)).score == pytest.approx(0.5)
    assert measure_similarity(_observed({}, unsure)).kind == "different"
    nothing = measure_similarity(_observed({}, None))
    assert (nothing.score, nothing.kind, nothing.informed, nothing.distance) == (0.5, "between", None, {})


def test_the_last_norm_counts():
    places = np.random.default_rng(0).normal(0.0, 1.0, (100, 40, 3))
    near, far = _norm(places, [0.0] * 3, [1.0] * 3), _norm(places, [9.0] * 3, [1.0] * 3)
    found = measure_similarity(_observed({"stem": far, "top": near}, None))
    assert found.score == 1.0
    assert list(found.distance) == ["stem", "top"]
    assert found.distance["stem"] > 10 > found.distance["top"]


def test_kinds_are_thirds():
    assert [classify_similarity(score) for score in (0, 0.33)] == ["different"] * 2
    assert [classify_similarity(score) for score in (0.34, 0.66)] == ["between"] * 2
    assert [classify_similarity(score) for score in (0.67, 1)] == ["similar"] * 2


def test_a_clearly_better_earlier_stage_rules_out_similar():
    for kind_, after in {"similar": "between", "between": "between", "different": "different"}.items():
        found = compare_stages(Similarity(0.5, kind_, {}, 0.5), {"stem": 0.4, "middle": 0.6, "last": 0.5}, 2000)
        assert (found.kind, found.outdone) == (after, "middle")
    alike = Similarity(0.9, "similar", {}, 0.5)
    assert compare_stages(alike, {"stem": 0.4, "last": 0.5}, 2000) == alike
    assert compare_stages(alike, {"stem": 0.54, "last": 0.5}, 2000) == alike  # hardly better
    assert compare_stages(alike, {"stem": 0.6, "last": 0.5}, 300) == alike  # which may be chance
    assert compare_stages(alike, {"only": 0.6}, 300) == alike


def test_similarity_is_known_with_a_measure():
    assert not Similarity(0.5, "between", {}, None).known
    assert Similarity(0.5, "between", {"top": 0.1}, None).known
    assert Similarity(0.5, "between", {}, 0.0).known


def _score(backbone, folder, cache, most=60):
    table = read_folder(folder)
    table = table.take(np.random.default_rng(0).permutation(len(table))[:most])
    return measure_similarity(observe(load(backbone, classifier="any"), table, inspect_files(table).sha256, cache))


@real
@pytest.mark.parametrize("backbone", ["mobilenetv2_100", "torchvision:squeezenet1_1"])
def test_flowers_and_objects_over_steel_over_noise(backbone, tmp_path, monkeypatch):
    monkeypatch.setenv("TRANSFER_WEIGHTS", str(SHARED / "weights"))
    rng = np.random.default_rng(0)
    for i in range(60):
        file = tmp_path / "noise" / f"class{i % 3}" / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (224, 224, 3), dtype=np.uint8)).save(file)
    cache = TrunkCache(CacheConfig(), disk_cache=DiskCache(tmp_path / "cache"))
    data = SHARED / "data"
    found = {
        name: _score(backbone, folder, cache)
        for name, folder in {
            "flowers": data / "flowers12",
            "office": data / "office31",
            "steel": data / "neu_cls",
            "noise": tmp_path / "noise",
        }.items()
    }
    assert min(found["flowers"].score, found["office"].score) > found["steel"].score + 0.2
    assert found["steel"].score > found["noise"].score + 0.05
    assert found["office"].kind == "similar"
    assert found["steel"].kind == found["noise"].kind == "different"
