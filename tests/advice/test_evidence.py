import math
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transfer.advice import evidence as module
from transfer.advice.evidence import (
    average_probes,
    choose_truncations,
    fit_learning_curve,
    gather_evidence,
    sample_rows,
    stack_stages,
)
from transfer.advice.observe import NetworkObservations
from transfer.advice.transferability.crossval import CrossValidation, cross_validate, score_held_out
from transfer.advice.transferability.folds import assign_folds
from transfer.advice.transferability.size import measure_set_size
from transfer.data.duplicates import Inspection
from transfer.data.table import ImageTable, make_softmax_target
from transfer.errors import TransferError

FEATURES = {  # of n images in d columns, by what is wrong with them
    "random": lambda rng, n, d: rng.normal(size=(n, d)),
    "all zero": lambda rng, n, d: np.zeros((n, d)),
    "constant": lambda rng, n, d: np.full((n, d), 3.7),
    "two distinct images": lambda rng, n, d: rng.normal(size=(2, d))[np.arange(n) % 2],
    "of rank 1": lambda rng, n, d: rng.normal(size=(n, 1)) * np.ones((1, d)),
    "one column that varies": lambda rng, n, d: np.eye(1, d) * rng.normal(size=(n, 1)),
    "constant but for rounding": lambda rng, n, d: 1 + 1e-7 * rng.normal(size=(n, d)),
    "tiny": lambda rng, n, d: 1e-30 * rng.normal(size=(n, d)),
    "huge": lambda rng, n, d: 1e18 * rng.normal(size=(n, d)),
}


def _table(labels):
    names = ["" if label < 0 else f"class{label}" for label in labels]
    empty = np.full(len(names), "")
    paths = np.array([f"/{i}.png" for i in range(len(names))])
    targets = {"object": make_softmax_target(names), "domain": make_softmax_target([""] * len(names))}
    return ImageTable(paths, targets, empty, empty)


def _inspection(n):
    digests = np.array([f"{i:064d}" for i in range(n)])
    return Inspection(digests, np.arange(n, dtype=np.uint64) << np.uint64(32), np.full(n, ""))


@pytest.fixture
def seen():
    """Three classes that the middle stage tells apart and the last does not; the original classifier does half."""
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 3
    noise = {name: rng.normal(size=(120, 6)) for name in ("stem", "middle", "last")}
    features = {"stem": noise["stem"], "middle": noise["middle"] + 4 * np.eye(6)[labels], "last": noise["last"]}
    p = np.full((120, 4), 0.1)
    p[np.arange(120), np.minimum(labels, 1)] = 0.7
    return labels, NetworkObservations({k: v.astype(np.float32) for k, v in features.items()}, {}, p)


def test_each_stage_is_measured(seen):
    labels, observed = seen
    table, inspection = _table(labels), _inspection(120)
    found = gather_evidence(observed, table, inspection, 120, measure_set_size(table, inspection))
    # The stem's neighbours know nothing.
    assert list(found.probes) == ["linear_probe", "truncate:1", "head2toe", "stage_probes"]
    assert found.probes["truncate:1"].accuracy > 0.95
    assert found.probes["head2toe"].accuracy > 0.9
    assert found.probes["linear_probe"].accuracy < 0.6
    assert found.neighbours["middle"] > 0.9 > 0.6 > found.neighbours["last"]
    assert found.transferability.leep == pytest.approx(0.4, abs=0.25)
    assert found.noise.share < 0.05
    np.testing.assert_array_equal(found.labels, labels)


def test_labels_beyond_the_labelled_rows_change_nothing(seen):
    labels, observed = seen
    table, inspection = _table(labels), _inspection(120)
    other = _table(np.where(np.arange(120) < 90, labels, (labels + 1) % 3))
    size = measure_set_size(table, inspection)
    one, two = (gather_evidence(observed, t, inspection, 90, size) for t in (table, other))
    for policy in one.probes:
        np.testing.assert_array_equal(one.probes[policy].probabilities, two.probes[policy].probabilities)
    assert one.transferability == two.transferability
    assert one.neighbours == two.neighbours


def test_without_an_original_classifier_there_is_no_leep(seen):
    labels, observed = seen
    table, inspection = _table(labels), _inspection(120)
    bare = NetworkObservations(observed.features, {}, None)
    found = gather_evidence(bare, table, inspection, 120, measure_set_size(table, inspection)).transferability
    assert found.leep is found.nce is None


def test_duplicates_are_no_neighbours_and_share_a_fold(seen):
    labels, observed = seen
    table, inspection = _table(labels), _inspection(120)
    twice = np.repeat(np.arange(60), 2)
    doubled = NetworkObservations({k: v[twice] for k, v in observed.features.items()}, {}, None)
    table, inspection = table.take(twice), inspection.take(twice)
    found = gather_evidence(doubled, table, inspection, 120, measure_set_size(table, inspection))
    folds = found.probes["linear_probe"].folds
    np.testing.assert_array_equal(folds[::2], folds[1::2])
    assert found.neighbours["last"] < 0.6


def test_a_sample_is_stratified(monkeypatch):
    monkeypatch.setattr(module, "MAX_PROBE_IMAGES", 100)
    labels = np.repeat([0, 1, 2, -1], [600, 300, 100, 50])
    learn, others = np.arange(1050), np.arange(0)
    rows, more = sample_rows(_table(labels), learn, others)
    assert len(rows) == 100
    assert len(more) == 0
    np.testing.assert_allclose(np.bincount(labels[rows]), [60, 30, 10], atol=1)


@pytest.mark.parametrize(("classes", "sampled"), [(2, 2500), (48, 2500), (100, 1200), (250, 1250), (400, 2000)])
def test_fewer_images_of_many_classes_are_sampled(classes, sampled):
    """As many as the time allows for, but at least five of each class."""
    labels = np.arange(8000) % classes
    rows, _ = sample_rows(_table(labels), np.arange(8000), np.arange(0))
    assert len(rows) == sampled
    assert np.bincount(labels[rows]).min() >= 5


def test_unlabelled_images_fill_up_a_small_sample():
    labels = np.repeat([0, 1, -1], [10, 10, 980])
    rows, more = sample_rows(_table(labels), np.arange(20), np.arange(20, 1000))
    np.testing.assert_array_equal(rows, np.arange(20))
    assert len(more) == module.MIN_SIMILARITY_IMAGES - 20
    assert set(more) <= set(range(20, 1000))


def test_stacked_stages_have_decreasing_shares():
    rng = np.random.default_rng(0)
    features = {"low": rng.normal(size=(50, 4)) * 100, "high": rng.normal(size=(50, 30))}
    stacked, ((low, low_share), (high, high_share)) = stack_stages(features)
    np.testing.assert_array_equal(stacked[:, low], features["low"])
    np.testing.assert_array_equal(stacked[:, high], features["high"])
    assert high_share / low_share == pytest.approx(2.5)


def test_only_the_best_few_earlier_stages_are_probed():
    assert choose_truncations({f"{i}": 0.9 for i in range(9)}) == [1, 2, 3]
    assert choose_truncations({"a": 0.95, "b": 0.1, "c": 0.9}) == [2]
    assert choose_truncations({"a": 0.5, "b": 0.9}) == []
    assert choose_truncations({"only": 1.0}) == []


def test_the_mean_is_of_the_probes_near_the_best():
    labels, folds = np.array([0, 1, 1]), np.arange(3)
    first, second = np.array([[0.9, 0.1], [0.4, 0.6], [0.8, 0.2]]), np.array([[0.6, 0.4], [0.2, 0.8], [0.1, 0.9]])
    far = score_held_out(np.array([[0.0, 1.0], [1.0, 0.0], [0.5, 0.5]]), labels, folds)
    near = [score_held_out(p, labels, folds) for p in (first, second)]
    product = np.sqrt(first * second)
    wanted = product / product.sum(1, keepdims=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "NEAR_BEST", 4.0)
        found = average_probes([*near, far], labels)
    np.testing.assert_allclose(found.probabilities, wanted)
    assert found.predictions.tolist() == [0, 1, 1]
    assert found.loss == pytest.approx(-np.log(wanted[np.arange(3), labels]).mean())
    assert found.l2 is None
    assert average_probes([*near, far], labels).probabilities == pytest.approx(
        second
    )  # within 1.3 of the best: it alone


def test_near_duplicates_share_a_fold_on_request(seen):
    labels, observed = seen
    table, inspection = _table(labels), _inspection(120)
    inspection.phash[::2] = np.random.default_rng(0).integers(0, 2**63, 60, np.uint64)
    inspection.phash[1::2] = inspection.phash[::2] ^ np.uint64(1)  # one bit apart
    observed = NetworkObservations({k: np.repeat(v[::2], 2, axis=0) for k, v in observed.features.items()}, {}, None)
    table = _table(np.repeat(labels[::2], 2))
    for kept in (False, True):
        found = gather_evidence(
            observed, table, inspection, 120, measure_set_size(table, inspection), near_together=kept
        )
        folds = found.probes["linear_probe"].folds
        assert (folds[::2] == folds[1::2]).all() == kept == found.near_together


def test_a_class_of_one_image_changes_little_for_the_others(seen):
    labels, observed = seen
    one = labels.copy()
    one[0] = 3
    found = []
    for label in (labels, one):
        table, inspection = _table(label), _inspection(120)
        found.append(gather_evidence(observed, table, inspection, 120, measure_set_size(table, inspection)))
    assert len(np.unique(found[1].probes["linear_probe"].folds)) == 5
    assert found[1].probes["truncate:1"].accuracy == pytest.approx(found[0].probes["truncate:1"].accuracy, abs=0.03)
    assert 3 not in found[1].noise.called
    assert found[1].noise.share < 0.05


def test_labels_that_no_probe_predicts_are_not_suspect(seen):
    labels, observed = seen
    drawn = np.random.default_rng(1).permutation(labels)
    table, inspection = _table(drawn), _inspection(120)
    found = gather_evidence(observed, table, inspection, 120, measure_set_size(table, inspection))
    assert not found.predicts_labels
    assert found.majority_share == pytest.approx(1 / 3)
    assert (found.noise.count, len(found.noise.suspects)) == (0, 0)


def test_images_of_one_class_are_refused():
    for labels, text in (([0, 0, -1], "2 labelled images of 1 classes"), ([-1, -1], "0 labelled images of 0")):
        with pytest.raises(TransferError, match=f"train and val hold {text}"):
            sample_rows(_table(np.array(labels)), np.arange(len(labels)), np.arange(0))


def _of_accuracy(right, labels):
    """Return predictions that are correct on a share of every hundred rows."""
    predictions = np.where(np.arange(len(labels)) % 100 < 100 * right, labels, (labels + 1) % 4)
    return CrossValidation(predictions, np.zeros((len(labels), 4)), labels, right, (0.0, 1.0), 1.0, None)


@pytest.mark.parametrize(
    ("half", "whole", "slope"),
    [(0.6, 0.7, np.log2(4 / 3)), (0.2, 0.2, 0.0), (0.2, 0.1, 0.0), (0.2, 0.8, 0.5)],  # never up, nor steeper than 1/2
)
def test_the_power_of_the_last_doubling(monkeypatch, half, whole, slope):
    labels = np.arange(400) % 4
    monkeypatch.setattr(module, "cross_validate", lambda x, y, folds: _of_accuracy(half, y))
    assert fit_learning_curve(np.zeros((400, 3)), labels, np.arange(400), _of_accuracy(whole, labels)) == pytest.approx(
        slope
    )


def test_a_half_that_cannot_be_cross_validated_has_no_curve():
    rng, labels = np.random.default_rng(0), np.arange(90) % 3
    x = rng.normal(size=(90, 4)).astype(np.float32)
    for count, has_curve in ((2, False), (30, True)):  # of two groups one is in the half, of thirty fifteen
        groups = np.arange(90) * count // 90
        whole = replace(cross_validate(x, labels, assign_folds(labels, groups)), predictions=labels)
        assert (fit_learning_curve(x, labels, groups, whole) > 0) is has_curve
    single = np.arange(90)
    single[:] = np.maximum(single - 60, 0)  # but for one class a single image each
    assert fit_learning_curve(x, single, np.arange(90), _of_accuracy(0.5, single)) == 0.0


def test_only_a_sampled_set_has_a_curve():
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.arange(400) % 4)
    features = (1.2 * np.eye(40)[labels] + rng.normal(size=(400, 40))).astype(np.float32)
    table, inspection = _table(labels), _inspection(400)
    inspection.phash[:] = rng.integers(0, 2**63, 400, np.uint64)
    observed = NetworkObservations({"last": features}, {}, None)
    size = measure_set_size(table, inspection)
    whole = gather_evidence(observed, table, inspection, 400, size)
    assert (whole.slope, whole.remaining_errors) == (0.0, 1.0)
    part = gather_evidence(observed, table, inspection, 200, size)
    assert 0 < part.slope <= 0.5
    assert part.remaining_errors == pytest.approx(2 ** (-part.slope / 2))  # one doubling, half of the power
    errors = [1 - found.probes["linear_probe"].accuracy for found in (part, whole)]
    assert errors[0] * part.remaining_errors == pytest.approx(errors[1], abs=0.06)


def test_the_rarest_class_is_in_every_fold_of_a_sample(monkeypatch):
    monkeypatch.setattr(module, "MAX_PROBE_IMAGES", 100)
    labels = np.repeat([0, 1, 2], [5000, 6, 2])
    rows, _ = sample_rows(_table(labels), np.arange(5008), np.arange(0))
    assert np.bincount(labels[rows]).tolist() == [93, 5, 2]


def _iter_numbers(value: Any) -> Iterator[float]:
    """Yield every number of an evidence but the probabilities, which are NaN by design for images in no fold."""
    if is_dataclass(value):
        for field in fields(value):
            if field.name != "probabilities":
                yield from _iter_numbers(getattr(value, field.name))
    elif isinstance(value, dict):
        yield from (number for item in value.values() for number in _iter_numbers(item))
    elif isinstance(value, tuple | np.ndarray):
        yield from (number for item in value for number in _iter_numbers(item))
    elif isinstance(value, float | int):
        yield value


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(sorted(FEATURES)),
    labels=st.lists(st.integers(-1, 3), min_size=1, max_size=14),
    copies=st.lists(st.integers(0, 3), min_size=14, max_size=14),
    width=st.sampled_from([1, 2, 30]),
    classifier=st.booleans(),
    seed=st.integers(0, 99),
)
def test_degenerate_images_have_numbers_or_one_line(kind, labels, copies, width, classifier, seed):
    """Two images, N < D, D = 1, constant features, copies in several classes, classes of one image, unknown labels."""
    rng, labels = np.random.default_rng(seed), np.array(sorted(labels, key=lambda label: label < 0))
    n, known = len(labels), int((labels >= 0).sum())
    features = {name: FEATURES[kind](rng, n, width).astype(np.float32) for name in ("stem", "last")}
    p = FEATURES[kind](rng, n, 5)
    p = np.exp(np.clip(p, -9, 9)) / np.exp(np.clip(p, -9, 9)).sum(1, keepdims=True)
    table, inspection = _table(labels), _inspection(n)
    digests = np.array([f"{c:064d}" if c else f"{i + 9:064d}" for i, c in enumerate(copies[:n])])
    inspection = replace(inspection, sha256=digests)
    observed = NetworkObservations(features, {}, p if classifier else None)
    try:
        found = gather_evidence(observed, table, inspection, known, measure_set_size(table, inspection), seed)
    except TransferError as error:
        assert "\n" not in str(error)  # noqa: PT017
        assert len(np.unique(labels[:known])) < 2 or len(np.unique(digests[:known])) < 2
        return
    assert all(math.isfinite(number) for number in _iter_numbers(found))
    scores = found.transferability
    assert scores.hscore is None or -1e-9 <= scores.hscore <= 1 + 1e-6
    assert (scores.leep is None) == (scores.nce is None) == (not classifier)


def test_an_h_score_of_one_class_is_not_measurable():
    """The same picture in both classes: without its second copy there is one class."""
    labels = np.array([0, 0, 1])
    table, inspection = _table(labels), _inspection(3)
    inspection = replace(inspection, sha256=inspection.sha256[[0, 1, 0]])
    features = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]], np.float32)
    observed = NetworkObservations({"last": features}, {}, None)
    found = gather_evidence(observed, table, inspection, 3, measure_set_size(table, inspection))
    assert found.transferability.hscore is None
