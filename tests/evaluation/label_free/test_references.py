import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from transfer.data.table import Target
from transfer.evaluation.label_free import references
from transfer.evaluation.label_free.references import collect_references, read_references, reference_tensors
from transfer.evaluation.label_free.second_opinion import SecondOpinion


@pytest.fixture
def opinion():
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(6, 3)).astype(np.float32).T  # not contiguous
    return SecondOpinion(weight, rng.normal(size=3).astype(np.float32), rng.normal(size=(3, 6)).astype(np.float32))


@pytest.fixture
def held_out():
    rng = np.random.default_rng(1)
    predictions = {"object": rng.dirichlet(np.ones(3), 40), "age": rng.normal(size=40)}
    predictions["object"][5] = np.nan
    labels = rng.integers(-1, 3, 40)
    targets = {"object": Target(labels, classes=("a", "b", "c")), "age": Target(rng.normal(size=40), "regression")}
    return predictions, targets


def test_labelled_rows_with_predictions_are_kept(held_out, opinion):
    found = collect_references(*held_out, {"object": opinion})["object"]
    labels = held_out[1]["object"].values
    rows = [row for row in range(40) if labels[row] >= 0 and row != 5]
    np.testing.assert_array_equal(found.labels, labels[rows])
    np.testing.assert_allclose(found.probabilities, held_out[0]["object"][rows], atol=1e-3)


def test_numbers_and_heads_without_an_opinion_have_none(held_out, opinion):
    assert collect_references(*held_out, {}) == {}
    assert collect_references(*held_out, {"age": opinion}) == {}
    held_out[1]["object"].values[:] = -1
    assert collect_references(*held_out, {"object": opinion}) == {}


def test_of_many_rows_a_sample_is_kept(held_out, opinion, monkeypatch):
    monkeypatch.setattr(references, "MAX_KEPT", 7)
    assert len(collect_references(*held_out, {"object": opinion})["object"].labels) == 7


def test_a_binary_head_has_two_classes(opinion):
    p = np.array([0.2, 0.9])
    opinion = SecondOpinion(opinion.weight[:2], opinion.bias[:2], opinion.centroids[:2])
    found = collect_references(
        {"sharp": p}, {"sharp": Target(np.array([0, 1]), "binary", ("no", "yes"))}, {"sharp": opinion}
    )
    np.testing.assert_allclose(found["sharp"].probabilities, [[0.8, 0.2], [0.1, 0.9]], atol=1e-3)


def test_what_is_written_is_read(held_out, opinion, tmp_path):
    made = collect_references(*held_out, {"object": opinion})
    save_file(reference_tensors(made) | {"other": np.zeros(1)}, tmp_path / "a")
    with safe_open(tmp_path / "a", "np") as opened:
        read = read_references(opened)
    assert read.keys() == {"object"}
    np.testing.assert_array_equal(read["object"].probabilities, made["object"].probabilities)
    np.testing.assert_array_equal(read["object"].labels, made["object"].labels)
    for key in ("weight", "bias", "centroids"):
        np.testing.assert_allclose(getattr(read["object"].opinion, key), getattr(opinion, key), rtol=2e-3)


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("labels", lambda v: v + 5),
        ("labels", lambda v: v[1:]),
        ("weight", lambda v: v[1:]),
        ("labels", lambda v: v - 9),
    ],
)
def test_tensors_that_do_not_belong_together_are_refused(key, change, held_out, opinion, tmp_path):
    save_file(reference_tensors(collect_references(*held_out, {"object": opinion})), tmp_path / "a")
    tensors = load_file(tmp_path / "a")
    tensors[f"accuracy/object/{key}"] = change(tensors[f"accuracy/object/{key}"]).copy()
    save_file(tensors, tmp_path / "a")
    with safe_open(tmp_path / "a", "np") as opened, pytest.raises(ValueError, match="accuracy/object"):
        read_references(opened)
