import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from transfer.data.table import ImageTable, Target
from transfer.errors import TransferError
from transfer.evaluation.uncertainty.record import PAIRS, HeldOut, Uncertainty, find_uncertainty, load_uncertainty
from transfer.runs.folder import UNCERTAINTY_FILE


@pytest.fixture
def answers():
    """Predictions and targets of 40 images: object, domain, a binary head and a number."""
    rng = np.random.default_rng(0)
    targets = {
        "object": Target(rng.integers(-1, 3, 40), classes=("a", "b", "c")),
        "domain": Target(rng.integers(0, 2, 40), classes=("x", "y")),
        "sharp": Target(rng.integers(0, 2, 40), "binary", ("no", "yes")),
        "age": Target(rng.normal(size=40), "regression"),
    }
    predictions = {
        "object": rng.dirichlet(np.ones(3), 40).astype(np.float32),
        "domain": rng.dirichlet(np.ones(2), 40).astype(np.float32),
        "sharp": rng.random(40).astype(np.float32),
        "age": rng.normal(size=40),
    }
    return predictions, targets


def table_of(targets):
    empty = np.full(40, "")
    return ImageTable(np.array([f"/{i}" for i in range(40)]), targets, empty, empty, "set")


def test_each_head_with_classes_has_sets_and_so_have_pairs(answers):
    predictions, targets = answers
    found = Uncertainty.from_predictions(predictions, targets, "held out").sets
    assert list(found) == ["object", "domain", "sharp", PAIRS]
    known = targets["object"].values >= 0
    for row, score in zip(np.flatnonzero(known), found["object"].scores, strict=True):
        assert score == pytest.approx(1 - predictions["object"][row, targets["object"].values[row]], abs=1e-6)
    for p, label, score in zip(predictions["sharp"], targets["sharp"].values, found["sharp"].scores, strict=True):
        assert score == pytest.approx(1 - p if label else p, abs=1e-6)
    assert found[PAIRS].classes == 6
    assert len(found[PAIRS].scores) == known.sum()


def test_heads_that_diverged_or_have_no_label_have_none(answers):
    predictions, targets = answers
    predictions["domain"][:] = np.nan
    targets["object"] = Target(np.full(40, -1), classes=("a", "b", "c"))
    assert list(Uncertainty.from_predictions(predictions, targets, "").sets) == ["sharp"]


def test_what_is_saved_is_read(answers, tmp_path):
    made = Uncertainty.from_predictions(*answers, "held out")
    made.save(tmp_path)
    for place in (tmp_path, tmp_path / "model.safetensors"):
        read = load_uncertainty(place)
        assert read.method == "held out"
        assert list(read.sets) == list(made.sets)
        p = answers[0]["object"].astype(float)
        np.testing.assert_array_equal(
            read.sets["object"].predict_sets(p, 0.8), made.sets["object"].predict_sets(p, 0.8)
        )


def test_a_run_without_it(tmp_path):
    assert find_uncertainty(tmp_path) is None
    assert find_uncertainty(None) is None
    with pytest.raises(TransferError, match=f"has no {UNCERTAINTY_FILE}, which prediction sets and unknown scores"):
        load_uncertainty(tmp_path)


@pytest.mark.parametrize("harm", ["cut", "label", "format"])
def test_damage_is_one_line(harm, answers, tmp_path, caplog):
    Uncertainty.from_predictions(*answers, "held out").save(tmp_path)
    file = tmp_path / UNCERTAINTY_FILE
    if harm == "cut":
        file.write_bytes(file.read_bytes()[:50])
    elif harm == "format":
        save_file(load_file(file), file)
    else:
        from safetensors import safe_open

        with safe_open(file, "np") as opened:
            metadata = opened.metadata()
        tensors = load_file(file)
        tensors["labels/object"][0] = 7
        save_file(tensors, file, metadata=metadata)
    with pytest.raises(TransferError, match="is damaged") as caught:
        load_uncertainty(tmp_path)
    assert "\n" not in str(caught.value)
    with caplog.at_level("WARNING"):
        assert find_uncertainty(tmp_path) is None  # predictions do without
    assert "is damaged" in caplog.text


def test_it_belongs_to_the_final_model_alone(answers, tmp_path):
    Uncertainty.from_predictions(*answers, "held out").save(tmp_path)
    for name in ("model.safetensors", "snapshot1.safetensors"):
        (tmp_path / name).touch()
    assert find_uncertainty(tmp_path / "model.safetensors")
    assert find_uncertainty(tmp_path / "snapshot1.safetensors") is None
    with pytest.raises(TransferError, match=r"belong to model\.safetensors"):
        load_uncertainty(tmp_path / "snapshot1.safetensors")


def test_networks_may_have_held_out_different_rows(answers):
    predictions, targets = answers
    table, rows = table_of(targets), np.arange(len(predictions["object"]))
    objects = HeldOut(rows[2:], {"object": predictions["object"][2:]}, "validation images")
    domains = HeldOut(rows[:-1], {"domain": predictions["domain"][:-1]}, "5 folds")
    made = Uncertainty.from_held_out(table, [objects, None, domains])
    assert made
    assert made.method == "validation images; 5 folds"
    labels = {name: targets[name].values for name in ("object", "domain")}
    both = [i for i in range(2, 39) if labels["object"][i] >= 0]
    assert len(made.sets["object"].scores) == (labels["object"][2:] >= 0).sum()
    assert len(made.sets["domain"].scores) == 39
    own = [predictions["object"][i, labels["object"][i]] * predictions["domain"][i, labels["domain"][i]] for i in both]
    np.testing.assert_allclose(made.sets[PAIRS].scores, 1 - np.array(own), rtol=1e-5)
    assert Uncertainty.from_held_out(table, [None]) is None


def test_measured_on_the_rows_whose_label_is_known(answers):
    predictions, targets = answers
    made = Uncertainty.from_predictions(predictions, targets, "held out")
    report = made.measure(table_of(targets), predictions)
    assert report["method"] == "held out"
    of_object = report["heads"]["object"]
    known = np.flatnonzero(targets["object"].values >= 0)
    assert of_object["n"] == len(known)
    members = made.sets["object"].predict_sets(predictions["object"].astype(float), 0.8)
    covered = [members[row, targets["object"].values[row]] for row in known]
    assert of_object["sets"]["0.8"]["coverage"] == pytest.approx(np.mean(covered))
    assert of_object["sets"]["0.8"]["size"] == pytest.approx(members[known].sum(1).mean())
    right = [predictions["object"][row].argmax() == targets["object"].values[row] for row in known]
    assert of_object["risk_coverage"]["curve"][-1][1] == pytest.approx(1 - np.mean(right), abs=1e-6)
    assert "risk_coverage" not in report["heads"][PAIRS]
    assert "age" not in report["heads"]
