import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from transfer.heads import HeadSpec, find_head_kind
from transfer.heads.heads import Heads
from transfer.heads.multilabel.head import average_thresholds
from transfer.probes import lbfgs
from transfer.probes.linear import solve_linear_probe

SPEC = HeadSpec("tags", "multilabel", ("big", "red", "round"))
KIND = find_head_kind("multilabel")
LOGITS = [[0.3, -2.0, 1.5], [4.0, 0.0, -1.0]]
SHOWN = [[1, 0, -1], [0, 1, 1]]


def losses(loss: str) -> list[float]:
    found = KIND.losses(SPEC, torch.tensor(LOGITS), torch.tensor(SHOWN, dtype=torch.int8), smoothing=0.1, loss=loss)
    return found.tolist()


def by_hand(each) -> list[float]:
    rows = zip(LOGITS, SHOWN, strict=True)
    return [sum(each(z, y) for z, y in zip(*row, strict=True) if y >= 0) for row in rows]


def test_the_loss_is_the_sum_of_logistic_losses_of_known_labels() -> None:
    assert losses("cross_entropy") == pytest.approx(by_hand(lambda z, y: math.log1p(math.exp(-z if y else z))))


def test_hinge_losses() -> None:
    assert losses("hinge") == pytest.approx(by_hand(lambda z, y: max(0.0, 1 - (z if y else -z))))


def test_the_asymmetric_loss_is_that_of_the_paper() -> None:
    """Ridnik et al. 2021, equations 5 to 7, with their default exponents and margin."""

    def each(z: float, y: int) -> float:
        p = 1 / (1 + math.exp(-z))
        shifted = max(p - 0.05, 0.0)
        return -math.log(p) if y else -(shifted**4) * math.log(1 - shifted)

    assert losses("asymmetric") == pytest.approx(by_hand(each), rel=1e-4)


def test_thresholds_decide() -> None:
    spec = HeadSpec("tags", "multilabel", SPEC.classes, thresholds=(0.2, 0.9, 0.5))
    told = KIND.describe(spec, np.array([0.3, 0.8, 0.6]), top=2)
    assert told == {
        "tags": ["round", "big"],
        "tags_probability": [0.6, 0.3],
        "tags_top": [["red", 0.8], ["round", 0.6]],
    }
    assert KIND.describe(SPEC, np.array([0.3, 0.8, 0.6]), top=1)["tags"] == ["red", "round"]


def test_thresholds_are_chosen_for_each_label_on_rows_that_are_known() -> None:
    target = KIND.read_column("tags", ["a|b"] * 6 + ["b"] * 6 + ["", "?a"], str)
    p = np.full((14, 2), 0.9)
    p[:6, 0], p[6:12, 0] = 0.3, 0.1
    p[12] = np.nan
    a, b = KIND.choose_thresholds(target, p)
    assert a == pytest.approx(0.2)
    assert b == pytest.approx(0.45)
    assert KIND.choose_thresholds(target.__class__(target.values[5:9], "multilabel", target.classes), p[5:9]) == (
        0.5,
        0.5,
    )


def test_another_set_is_read_in_terms_of_the_head() -> None:
    given = KIND.read_column("tags", ["Red|flat", "round|?big", "", "none"], str)
    aligned, foreign = KIND.align(given, SPEC)
    assert foreign == ["flat"]
    assert aligned.values.tolist() == [[0, 1, 0], [-1, 0, 1], [-1, -1, -1], [0, 0, 0]]
    assert KIND.unknown_target(SPEC, 2).known.tolist() == [False, False]


def test_cells_of_predictions_are_read_again() -> None:
    target = KIND.read_column("tags", ["red|round", "none", "", "red|?round"], str)
    rows = KIND.csv_columns("tags", target, np.array([[0.9, 0.2], [0.1, 0.1], [0.6, 0.7], [0.5, 0.4]]))
    assert [row["tags_predicted"] for row in rows] == ["red", "none", "red|round", "red"]
    assert rows[0]["tags:round"] == 0.2
    again = KIND.read_truths([row["tags"] for row in rows])
    assert (again.classes, again.values.tolist()) == (target.classes, target.values.tolist())
    assert KIND.read_truths(["none", ""]).values.shape == (2, 0)


def test_labels_that_train_does_not_tell_apart_are_noted() -> None:
    target = KIND.read_column("tags", ["a|b", "a|c", "a"], str)
    notes = KIND.describe_training("tags", target, np.array([1, 2]))
    assert notes == [
        "tags: no training image shows 1 of the 3 labels (b)",
        "tags: every training image shows 1 of the 3 labels (a)",
    ]


def test_an_ensemble_has_the_mean_thresholds() -> None:
    first, second = (HeadSpec("tags", "multilabel", ("a", "b"), thresholds=t) for t in ((0.2, 0.4), (0.4, 0.8)))
    assert average_thresholds(first, [second]).thresholds == pytest.approx((0.3, 0.6))
    assert average_thresholds(SPEC, []) is SPEC


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_a_solved_head_is_a_logistic_regression_for_each_label(monkeypatch, missing) -> None:
    """scikit-learn's, one per label, on the features that the probe scales, under the same penalty."""
    monkeypatch.setattr(lbfgs, "FINE_TOLERANCE", 1e-5)
    rng, l2, n = np.random.default_rng(0), 0.05, 300
    x = rng.normal(size=(n, 8)) * np.linspace(0.5, 2, 8)
    y = (x @ rng.normal(size=(8, 3)) + rng.normal(size=(n, 3)) > 0.5).astype(np.int8)
    y[rng.random(y.shape) < missing] = -1
    y[(y < 0).all(1), 0] = 0  # every row counts
    heads = Heads([SPEC], 8)
    features = torch.from_numpy(x).float()
    assert solve_linear_probe(heads, (features, {"tags": torch.from_numpy(y)}), fixed_l2={"tags": l2}) == {"tags": l2}
    with torch.no_grad():
        found = heads.eval().predictions(heads(features))["tags"].numpy()
    spread = x.std(0)
    scaled = (x - x.mean(0)) / np.sqrt(spread * spread.mean())
    for label in range(3):
        known = y[:, label] >= 0
        model = LogisticRegression(C=1 / (l2 * n), tol=1e-8, max_iter=5000)
        model.fit(scaled[known], y[known, label])
        np.testing.assert_allclose(found[:, label], model.predict_proba(scaled)[:, 1], atol=1e-3)
