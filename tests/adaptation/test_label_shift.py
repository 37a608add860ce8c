import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transfer.adaptation import label_shift
from transfer.adaptation.selection.evidence import CandidateEvidence, log_softmax, softmax

CLASSES, WIDTH = 6, 8
MEANS = 3.5 * np.eye(CLASSES, WIDTH)
EQUAL = np.full(CLASSES, 1 / CLASSES)


def rows(rng: np.random.Generator, labels: np.ndarray, means: np.ndarray = MEANS) -> np.ndarray:
    return (means[labels] + rng.normal(size=(len(labels), WIDTH))).astype(np.float32)


def logits(features: np.ndarray, means: np.ndarray = MEANS) -> np.ndarray:
    """Return the Bayes classifier's logits for classes of one size."""
    return (features @ means.T - (means**2).sum(1) / 2).astype(np.float32)


def draw(labels: np.ndarray, seed: int = 0, moved: float = 0.0) -> CandidateEvidence:
    """Return evidence of a source with equal classes and a target with `labels`."""
    rng = np.random.default_rng(seed)
    source, val = (np.arange(size) % CLASSES for size in (1200, 600))
    x, v, t = rows(rng, source), rows(rng, val), rows(rng, labels) + np.float32(moved)
    return CandidateEvidence(x, source, v, logits(v), val, t, logits(t))


def resampled(prior: np.ndarray, size: int = 1500, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).choice(CLASSES, size, p=prior)


SKEWED = np.array([0.5, 0.25, 0.1, 0.05, 0.05, 0.05])


def test_equal_domains_give_no_notes() -> None:
    found = label_shift.measure_label_shift(draw(resampled(EQUAL)))
    assert (found.strong, found.partial, found.open_set) == (False, False, False)
    assert found.notes() == []
    assert found.variation == pytest.approx(0, abs=0.08)
    assert found.absent == ()
    assert abs(found.looseness) < 0.01


def test_strong_label_shift_is_noticed_and_measured() -> None:
    labels = resampled(SKEWED)
    found = label_shift.measure_label_shift(draw(labels))
    true = np.bincount(labels, minlength=CLASSES) / len(labels)
    np.testing.assert_allclose(found.target_prior, true, atol=0.02)
    distance = sum(abs(p - q) for p, q in zip(true, EQUAL, strict=True)) / 2
    assert found.variation == pytest.approx(distance, abs=0.02)
    assert found.variation_bbse == pytest.approx(distance, abs=0.03)
    assert found.strong
    assert not found.partial
    (note,) = found.notes()
    assert f"{found.variation:.2f}" in note


def test_missing_classes_are_named() -> None:
    found = label_shift.measure_label_shift(draw(resampled(np.array([0.4, 0.3, 0.3, 0, 0, 0]))))
    assert found.absent == (3, 4, 5)
    assert found.partial
    (note,) = found.notes("abcdef")
    assert "lack 3 of the source's 6 classes (d, e, f)" in note
    assert "class 3, class 4" in found.notes()[0]


def test_a_long_list_of_missing_classes_is_cut() -> None:
    found = label_shift.measure_label_shift(draw(resampled(SKEWED)))
    many = dataclasses.replace(found, source_prior=(0.1,) * 10, absent=tuple(range(8)))
    assert "(class 0, class 1, class 2, class 3, class 4 and 3 more)" in many.notes()[0]


def test_unknown_classes_are_noticed() -> None:
    rng = np.random.default_rng(0)
    unknown = 3.5 * np.eye(WIDTH)[CLASSES:]
    means = np.concatenate([MEANS, unknown, -unknown])
    e = draw(resampled(EQUAL))
    t = rows(rng, rng.integers(0, len(means), 1500), means)
    found = label_shift.measure_label_shift(dataclasses.replace(e, target_features=t, target_logits=logits(t)))
    assert found.open_set


def test_absent_classes_suppress_the_open_set_flag() -> None:
    found = dataclasses.replace(
        label_shift.measure_label_shift(draw(resampled(np.array([0.4, 0.3, 0.3, 0, 0, 0])))), looseness=0.5
    )
    assert not found.open_set
    assert len(found.notes()) == 1
    assert dataclasses.replace(found, absent=()).open_set


def test_chance_is_what_equal_priors_give_on_average() -> None:
    found = label_shift.measure_label_shift(draw(resampled(EQUAL, 300)))
    rng = np.random.default_rng(0)
    drawn = [rng.multinomial(n, EQUAL, 4000) / n for n in (300, 1200)]
    assert found.chance == pytest.approx(np.abs(drawn[0] - drawn[1]).sum(1).mean() / 2, rel=0.05)


@pytest.mark.parametrize("size", [1, 3])
def test_a_tiny_target_raises_no_flag(size: int) -> None:
    found = label_shift.measure_label_shift(draw(np.zeros(size, np.int64)))
    assert math.isnan(found.looseness)
    assert found.notes() == []


def test_without_held_out_rows() -> None:
    e = draw(resampled(SKEWED))
    none = dataclasses.replace(
        e, val_features=e.val_features[:0], val_logits=e.val_logits[:0], val_labels=e.val_labels[:0]
    )
    found = label_shift.measure_label_shift(none)
    assert math.isnan(found.variation_bbse)
    assert math.isnan(found.estimated_accuracy)
    assert found.strong


def test_one_class() -> None:
    e = draw(np.zeros(50, np.int64))
    one = CandidateEvidence(
        e.source_features, 0 * e.source_labels, e.val_features, e.val_logits[:, :1], 0 * e.val_labels,
        e.target_features, e.target_logits[:, :1],
    )  # fmt: skip
    found = label_shift.measure_label_shift(one)
    assert found.target_prior == (1.0,)
    assert found.variation == 0
    assert not found.strong
    assert found.estimated_accuracy == 1


def test_a_distance_of_one_distribution_and_of_two() -> None:
    rng = np.random.default_rng(0)
    same = [
        label_shift.proxy_a_distance(rng.normal(size=(400, 30)), rng.normal(size=(700, 30)), seed=s) for s in range(5)
    ]
    assert np.mean(same) < 0.15
    apart = np.eye(1, 30) * 40
    assert label_shift.proxy_a_distance(rng.normal(size=(400, 30)) - apart, rng.normal(size=(700, 30)) + apart) == 2


def test_a_distance_of_overlapping_gaussians_is_that_of_the_bayes_error() -> None:
    rng = np.random.default_rng(0)
    gap = 1.5
    a, b = rng.normal(size=(3000, 2)), rng.normal(size=(3000, 2)) + np.array([gap, 0])
    bayes = 0.5 * math.erfc(gap / 2 / math.sqrt(2))
    far = np.full((3000, 1), 30.0)  # a long constant column, so that scaling rows to length 1 changes little
    found = label_shift.proxy_a_distance(np.hstack([a, far]), np.hstack([b, far]))
    assert found == pytest.approx(2 * (1 - 2 * bayes), abs=0.06)


def test_a_distance_is_seeded_and_needs_five_rows() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(50, 4)), rng.normal(size=(90, 4)) + 0.5
    assert label_shift.proxy_a_distance(a, b, seed=3) == label_shift.proxy_a_distance(a, b, seed=3)
    assert math.isnan(label_shift.proxy_a_distance(a[:4], b))


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), scale=st.sampled_from([0.2, 1.0, 5.0]))
def test_calibration_undoes_scale_and_bias(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    true = rng.normal(size=(20_000, 4)) * 2
    labels = (true + rng.gumbel(size=true.shape)).argmax(1)  # drawn from softmax(true)
    bias = np.array([1.0, -0.5, 0.0, -0.5])
    found_scale, found_bias = label_shift.fit_calibration((true - bias) / scale, labels)
    assert found_scale == pytest.approx(scale, rel=0.06)
    np.testing.assert_allclose(found_bias - found_bias.mean(), bias, atol=0.12)


def test_calibration_stays_finite_where_every_row_is_right_or_there_is_none() -> None:
    scale, bias = label_shift.fit_calibration(np.eye(3, dtype=np.float32) * 5, np.arange(3))
    assert 0.1 < scale < 10
    assert np.abs(bias).max() < 3
    scale, bias = label_shift.fit_calibration(np.empty((0, 3), np.float32), np.empty(0, np.int64))
    assert scale == 1
    assert (bias == 0).all()


def test_em_by_a_loop_and_its_fixed_point() -> None:
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(3), 40)
    source = np.array([0.2, 0.3, 0.5])
    prior = source.tolist()
    for _ in range(2000):
        total = [0.0] * 3
        for row in p.tolist():
            weighted = [row[k] * prior[k] / source[k] for k in range(3)]
            total = [total[k] + weighted[k] / sum(weighted) for k in range(3)]
        prior = [value / len(p) for value in total]
    np.testing.assert_allclose(label_shift.estimate_target_prior(p, source, rounds=5000), prior, atol=1e-4)


@pytest.mark.parametrize("prior", [EQUAL, SKEWED, np.array([1, 0, 0, 0, 0, 0.0])])
def test_both_estimates_find_a_known_resampling(prior: np.ndarray) -> None:
    e = draw(resampled(prior), seed=4)
    scale, bias = label_shift.fit_calibration(e.val_logits, e.val_labels)
    em = label_shift.estimate_target_prior(softmax(scale * e.target_logits + bias), EQUAL)
    black_box = label_shift.estimate_prior_bbse(e.val_logits, e.val_labels, e.target_logits)
    for found in (em, black_box):
        assert found.sum() == pytest.approx(1)
        assert (found >= 0).all()
        assert np.abs(found - prior).sum() / 2 < 0.05


def test_black_box_prior_from_a_confusion_that_is_known() -> None:
    """Half of class 1 is called 0, and of class 2 no row is held out; the held-out classes are not of one size."""
    predicted, labels = np.array([0] * 6 + [0, 1]), np.array([0] * 6 + [1, 1])
    target = np.repeat([0, 1, 2], [50, 20, 30])  # 0.3 of class 0 and 0.4 of class 1, half of it called 0
    found = label_shift.estimate_prior_bbse(np.eye(3)[predicted], labels, np.eye(3)[target])
    np.testing.assert_allclose(found, [0.3, 0.4, 0.3], atol=1e-9)


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 1000))
def test_the_order_of_rows_and_classes_does_not_matter(seed: int) -> None:
    e = draw(resampled(SKEWED, 300), seed=seed)
    rng = np.random.default_rng(seed)
    k, target, val = (rng.permutation(size) for size in (CLASSES, 300, 600))
    place = np.argsort(k)
    mixed = CandidateEvidence(
        e.source_features, place[e.source_labels], e.val_features[val], e.val_logits[val][:, k],
        place[e.val_labels[val]], e.target_features[target], e.target_logits[target][:, k],
    )  # fmt: skip
    one, other = label_shift.measure_label_shift(e), label_shift.measure_label_shift(mixed)
    np.testing.assert_allclose(np.array(one.target_prior)[k], other.target_prior, atol=2e-3)
    assert other.variation == pytest.approx(one.variation, abs=2e-3)
    assert other.variation_bbse == pytest.approx(one.variation_bbse, abs=1e-6)
    assert other.looseness == pytest.approx(one.looseness, abs=1e-4)
    assert other.estimated_accuracy == pytest.approx(one.estimated_accuracy, abs=0.01)
    assert {int(k[c]) for c in other.absent} == set(one.absent)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), size=st.integers(1, 80))
def test_bounds(seed: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    found = label_shift.measure_label_shift(draw(resampled(rng.dirichlet(np.ones(CLASSES)), size, seed), seed=seed))
    assert sum(found.target_prior) == pytest.approx(1)
    assert 0 <= found.variation <= 1
    assert 0 <= found.variation_bbse <= 1
    assert math.isnan(found.looseness) or -2 <= found.looseness <= 2
    assert 0 <= found.estimated_accuracy <= 1


@pytest.mark.parametrize("seed", range(3))
def test_looseness_by_a_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    e = draw(resampled(EQUAL, 90), seed=seed)
    keep = rng.permutation(1200)[:60]
    e = dataclasses.replace(
        e, source_features=e.source_features[keep], source_labels=e.source_labels[keep],
        val_features=e.val_features[:30], val_logits=e.val_logits[:30], val_labels=e.val_labels[:30],
    )  # fmt: skip

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    def gap(x: np.ndarray, given: list[int]) -> float:
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
        for _ in range(10):
            sums = {k: sum(x[i] for i in range(len(x)) if given[i] == k) for k in sorted(set(given))}
            given = [max(sums, key=lambda k: cosine(row, sums[k])) for row in x]
        nearest, own = [], []
        for i in range(len(x)):
            nearest.append(max(cosine(x[i], x[j]) for j in range(len(x)) if j != i))
            company = [x[j] for j in range(len(x)) if j != i and given[j] == given[i]]
            if company:
                own.append(cosine(x[i], sum(company)))
        return float(np.mean(nearest) - np.mean(own))

    source = np.concatenate([e.source_features, e.val_features]).astype(float)
    labels = np.concatenate([e.source_labels, e.val_labels]).tolist()
    target = gap(e.target_features.astype(float), e.target_logits.argmax(1).tolist())
    assert label_shift.measure_looseness(e) == pytest.approx(target - gap(source, labels), abs=1e-4)


def test_duplicates_do_not_count_as_unknown_classes() -> None:
    e = draw(resampled(EQUAL, 600))
    twice = dataclasses.replace(
        e, target_features=np.repeat(e.target_features, 2, 0), target_logits=np.repeat(e.target_logits, 2, 0)
    )
    assert label_shift.measure_looseness(twice) == pytest.approx(label_shift.measure_looseness(e), abs=0.01)


def test_estimated_accuracy_by_a_loop_and_on_a_known_target() -> None:
    e = draw(resampled(EQUAL, 3000, seed=1), seed=1)
    scale, bias = label_shift.fit_calibration(e.val_logits, e.val_labels)

    def sureness(values: np.ndarray) -> list[float]:
        return [sum(math.exp(q) * q for q in row) for row in log_softmax(scale * values + bias)]

    wrong = sum((scale * row + bias).argmax() != y for row, y in zip(e.val_logits, e.val_labels, strict=True))
    threshold = sorted(sureness(e.val_logits))[wrong]  # as many below it as are wrong
    share = np.mean([value >= threshold for value in sureness(e.target_logits)])
    found = label_shift.estimate_accuracy(e.val_logits, e.val_labels, e.target_logits)
    assert found == pytest.approx(share, abs=0.01)
    true = (e.target_logits.argmax(1) == resampled(EQUAL, 3000, seed=1)).mean()
    assert found == pytest.approx(true, abs=0.02)


def test_log_probabilities_under_the_targets_own_shares():
    """Bayes' rule by hand, with the shares that EM finds: about the true ones."""
    evidence = draw(resampled(SKEWED))
    scale, bias = label_shift.fit_calibration(evidence.val_logits, evidence.val_labels)
    p = softmax(scale * evidence.target_logits + bias)
    prior = label_shift.estimate_target_prior(p, EQUAL)
    assert np.abs(prior - SKEWED).sum() < 0.1
    wanted = np.array([[row[k] * prior[k] / EQUAL[k] for k in range(CLASSES)] for row in p])
    wanted /= wanted.sum(1, keepdims=True)
    said = softmax(label_shift.prior_corrected_log_probabilities(evidence))
    assert np.allclose(said, wanted, atol=1e-4)
    true = resampled(SKEWED)
    assert (said.argmax(1) == true).mean() > (p.argmax(1) == true).mean()
