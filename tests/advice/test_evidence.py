import numpy as np
import pytest

from transfer.advice import evidence as module
from transfer.advice.evidence import averaged, gather, sample, together, worth_a_probe
from transfer.advice.observe import Observations
from transfer.data.inspect import Inspection
from transfer.data.table import ImageTable, softmax_target
from transfer.measure.crossval import judged
from transfer.measure.size import set_size


def _table(labels):
    names = ["" if label < 0 else f"class{label}" for label in labels]
    empty = np.full(len(names), "")
    paths = np.array([f"/{i}.png" for i in range(len(names))])
    targets = {"object": softmax_target(names), "domain": softmax_target([""] * len(names))}
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
    return labels, Observations({k: v.astype(np.float32) for k, v in features.items()}, {}, p)


def test_each_stage_is_judged_by_what_it_tells_apart(seen):
    labels, observed = seen
    table, inspection = _table(labels), _inspection(120)
    found = gather(observed, table, inspection, 120, set_size(table, inspection))
    # The stem's neighbours know nothing.
    assert list(found.probes) == ["linear_probe", "truncate:1", "head2toe", "stage_probes"]
    assert found.probes["truncate:1"].accuracy > 0.95
    assert found.probes["head2toe"].accuracy > 0.9
    assert found.probes["linear_probe"].accuracy < 0.6
    assert found.neighbours["middle"] > 0.9 > 0.6 > found.neighbours["last"]
    assert found.transferability.leep == pytest.approx(0.4, abs=0.25)
    assert found.noise.share < 0.05
    np.testing.assert_array_equal(found.labels, labels)


def test_labels_beyond_the_judged_rows_change_nothing(seen):
    labels, observed = seen
    table, inspection = _table(labels), _inspection(120)
    other = _table(np.where(np.arange(120) < 90, labels, (labels + 1) % 3))
    size = set_size(table, inspection)
    one, two = (gather(observed, t, inspection, 90, size) for t in (table, other))
    for policy in one.probes:
        np.testing.assert_array_equal(one.probes[policy].probabilities, two.probes[policy].probabilities)
    assert one.transferability == two.transferability
    assert one.neighbours == two.neighbours


def test_without_an_original_classifier_there_is_no_leep(seen):
    labels, observed = seen
    table, inspection = _table(labels), _inspection(120)
    bare = Observations(observed.features, {}, None)
    found = gather(bare, table, inspection, 120, set_size(table, inspection)).transferability
    assert found.leep is found.nce is None


def test_copies_are_not_each_others_neighbours_nor_in_two_folds(seen):
    labels, observed = seen
    table, inspection = _table(labels), _inspection(120)
    twice = np.repeat(np.arange(60), 2)
    doubled = Observations({k: v[twice] for k, v in observed.features.items()}, {}, None)
    table, inspection = table.take(twice), inspection.take(twice)
    found = gather(doubled, table, inspection, 120, set_size(table, inspection))
    folds = found.probes["linear_probe"].folds
    np.testing.assert_array_equal(folds[::2], folds[1::2])
    assert found.neighbours["last"] < 0.6


def test_a_sample_has_every_class_in_its_share(monkeypatch):
    monkeypatch.setattr(module, "ROWS", 100)
    labels = np.repeat([0, 1, 2, -1], [600, 300, 100, 50])
    learn, others = np.arange(1050), np.arange(0)
    rows, more = sample(_table(labels), learn, others)
    assert len(rows) == 100
    assert len(more) == 0
    np.testing.assert_allclose(np.bincount(labels[rows]), [60, 30, 10], atol=1)


def test_images_without_labels_fill_up_where_few_have_some():
    labels = np.repeat([0, 1, -1], [10, 10, 980])
    rows, more = sample(_table(labels), np.arange(20), np.arange(20, 1000))
    np.testing.assert_array_equal(rows, np.arange(20))
    assert len(more) == module.ENOUGH - 20
    assert set(more) <= set(range(20, 1000))


def test_stages_side_by_side_have_shares_that_fade():
    rng = np.random.default_rng(0)
    features = {"low": rng.normal(size=(50, 4)) * 100, "high": rng.normal(size=(50, 30))}
    spread = together(features).std(0)
    assert spread[4:].sum() / spread[:4].sum() == pytest.approx(2.5)


def test_only_the_best_few_earlier_stages_are_worth_a_probe():
    assert worth_a_probe({f"{i}": 0.9 for i in range(9)}) == [1, 2, 3]
    assert worth_a_probe({"a": 0.95, "b": 0.1, "c": 0.9}) == [2]
    assert worth_a_probe({"a": 0.5, "b": 0.9}) == []
    assert worth_a_probe({"only": 1.0}) == []


def test_the_mean_is_of_the_probes_near_the_best_and_judged_as_they_are():
    labels, folds = np.array([0, 1, 1]), np.arange(3)
    first, second = np.array([[0.9, 0.1], [0.4, 0.6], [0.8, 0.2]]), np.array([[0.6, 0.4], [0.2, 0.8], [0.1, 0.9]])
    far = judged(np.array([[0.0, 1.0], [1.0, 0.0], [0.5, 0.5]]), labels, folds)
    near = [judged(some, labels, folds) for some in (first, second)]
    product = np.sqrt(first * second)
    wanted = product / product.sum(1, keepdims=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "NEAR_BEST", 4.0)
        found = averaged([*near, far], labels)
    np.testing.assert_allclose(found.probabilities, wanted)
    assert found.predictions.tolist() == [0, 1, 1]
    assert found.loss == pytest.approx(-np.log(wanted[np.arange(3), labels]).mean())
    assert found.strength is None
    assert averaged([*near, far], labels).probabilities == pytest.approx(second)  # within 1.3 of the best: it alone
