import json
import math

import numpy as np
import pytest
import torch

from transfer import BackboneConfig, DataConfig, LearnConfig, RunConfig, TrainConfig, train
from transfer.config.train import HeadConfig
from transfer.evaluation.temperature import BOUNDS, PRIOR_SD, apply_temperatures, fit_temperatures, match_confidence
from transfer.heads import HeadSpec
from transfer.heads.heads import Heads

CLASSES = {"object": ("a", "b", "c"), "domain": ("x", "y")}


class _Feed:
    """Features as they are, in two batches."""

    def __init__(self, features):
        self.features = features

    def batches(self, rows, split):
        for part in np.array_split(rows, 2):
            yield part, self.features[torch.from_numpy(part)]

    def gather_batch(self, features, rows):
        return features


class _Model(torch.nn.Module):
    """Heads on features that need no backbone."""

    def __init__(self, heads):
        super().__init__()
        self.heads = heads

    def features(self, x):
        return x


def make_model(specs, **options):
    torch.manual_seed(0)
    heads = Heads(specs, 6, **options)
    for parameter in heads.parameters():
        torch.nn.init.normal_(parameter, std=2.0)  # far too confident
    return _Model(heads.eval())


def softmax_specs():
    return [HeadSpec(name, classes=classes) for name, classes in CLASSES.items()]


def make_rows(n=80):
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(n, 6, generator=generator)
    labels = {name: torch.randint(len(c), (n,), generator=generator) for name, c in CLASSES.items()}
    return _Feed(features), np.arange(n), labels


def best_on_grid(logits, target):
    """Return the temperature of the grid with the least cross-entropy plus prior, computed row by row."""
    logits, target = np.asarray(logits.tolist()), target.tolist()
    grid = np.exp(np.linspace(*BOUNDS, 4001))
    costs = []
    for temperature in grid:
        scaled = logits / temperature
        nll = sum(
            math.log(np.exp(row - row.max()).sum()) + row.max() - row[t] for row, t in zip(scaled, target, strict=True)
        )
        costs.append(nll + (math.log(temperature) / PRIOR_SD) ** 2 / 2)
    return grid[int(np.argmin(costs))]


def test_it_is_the_likeliest_temperature_on_labelled_rows():
    model = make_model(softmax_specs())
    feed, rows, labels = make_rows()
    labels["object"][:20] = -1
    found = fit_temperatures(model, feed, rows, labels)
    with torch.no_grad():
        out = model.heads(feed.features)
    assert found["object"] == pytest.approx(best_on_grid(out["object"][20:], labels["object"][20:]), rel=0.01)
    assert found["domain"] == pytest.approx(best_on_grid(out["domain"], labels["domain"]), rel=0.01)


def test_a_joint_head_has_one_temperature():
    model = make_model(softmax_specs(), compose="joint")
    feed, rows, labels = make_rows()
    found = fit_temperatures(model, feed, rows, labels)
    with torch.no_grad():
        pairs = model.heads(feed.features)["joint"].flatten(1)
    assert list(found) == ["joint"]
    assert found["joint"] == pytest.approx(best_on_grid(pairs, labels["domain"] * 3 + labels["object"]), rel=0.01)


def test_a_binary_head_has_one_and_a_number_has_none():
    model = make_model([HeadSpec("people", "binary", ("no", "yes")), HeadSpec("age", "regression")])
    feed, rows, labels = make_rows()
    labels = {"people": labels["domain"], "age": torch.randn(80)}
    found = fit_temperatures(model, feed, rows, labels)
    with torch.no_grad():
        logit = model.heads(feed.features)["people"]
    assert list(found) == ["people"]
    both = torch.stack([torch.zeros_like(logit), logit], 1)
    assert found["people"] == pytest.approx(best_on_grid(both, labels["people"]), rel=0.01)


def test_a_head_without_labelled_rows_has_none():
    model = make_model(softmax_specs())
    feed, rows, labels = make_rows()
    assert list(fit_temperatures(model, feed, rows, labels | {"object": torch.full((80,), -1)})) == ["domain"]


@pytest.mark.parametrize("case", ["object", "domain", "mixed"])
def test_rows_with_one_label_count_as_those_with_both_under_a_joint_head(case):
    """They have the probability of the marginal; in "mixed" some rows have both labels and some only an object."""
    model = make_model(softmax_specs(), compose="joint")
    feed, rows, labels = make_rows()
    for name in {"object": ["domain"], "domain": ["object"], "mixed": ["domain"]}[case]:
        labels[name][30 if case == "mixed" else 0 :] = -1
    with torch.no_grad():
        logits = model.heads.layer_outputs(feed.features)["joint"].double().unflatten(1, (2, 3))
    grid, costs = np.exp(np.linspace(*BOUNDS, 1001)), []
    for temperature in grid:
        cost = (math.log(temperature) / PRIOR_SD) ** 2 / 2
        for pairs, o, d in zip(logits / temperature, labels["object"].tolist(), labels["domain"].tolist(), strict=True):
            chances = pairs.exp() / pairs.exp().sum()
            cost -= math.log(chances[d if d >= 0 else slice(None), o if o >= 0 else slice(None)].sum())
        costs.append(cost)
    assert fit_temperatures(model, feed, rows, labels)["joint"] == pytest.approx(grid[int(np.argmin(costs))], rel=0.01)


@pytest.mark.parametrize("n", [45, 47])
def test_rows_that_just_outweigh_the_prior_take_the_bound(n):
    """All are correct, by the margin that a low temperature helps most: at the bound it still does, by 0.5 and 1.1."""
    model = make_model([HeadSpec("domain", classes=CLASSES["domain"])])
    last = model.heads.layer("domain")[-1]
    with torch.no_grad():
        last.weight.zero_()
        last.bias.copy_(torch.tensor([1.278, 0.0]) * math.exp(BOUNDS[0]))
    feed, rows, _ = make_rows(n)
    found = fit_temperatures(model, feed, rows, {"domain": torch.zeros(n, dtype=torch.long)})["domain"]
    with torch.no_grad():
        logits = model.heads(feed.features)["domain"]
    assert found == pytest.approx(best_on_grid(logits, torch.zeros(n, dtype=torch.long)), rel=0.01)


def test_few_rows_that_are_all_correct_do_not_ask_for_certainty():
    model = make_model(softmax_specs())
    feed, rows, labels = make_rows(5)
    with torch.no_grad():
        labels = {name: out.argmax(1) for name, out in model.heads(feed.features).items()}
    assert all(temperature > 0.1 for temperature in fit_temperatures(model, feed, rows, labels).values())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e38])
def test_outputs_of_a_network_that_diverged_stay(value):
    model = make_model(softmax_specs())
    feed, rows, labels = make_rows()
    feed.features[3] = value
    assert fit_temperatures(model, feed, rows, labels) == {"object": 1.0, "domain": 1.0}


@pytest.mark.parametrize("options", [{}, {"hidden": (4,)}, {"compose": "joint"}, {"dropout": 0.5}], ids=str)
def test_folding_divides_the_outputs(options):
    model = make_model(softmax_specs(), **options)
    features = make_rows()[0].features
    with torch.no_grad():
        before, decided = model.heads.layer_outputs(features), model.heads(features)
        temperatures = dict(zip(before, (0.5, 3.0), strict=False))  # a joint head has one
        apply_temperatures(model.heads, temperatures)
        after, still = model.heads.layer_outputs(features), model.heads(features)
    for name, temperature in temperatures.items():
        torch.testing.assert_close(after[name], before[name] / temperature)
    if "compose" not in options:
        assert all(torch.equal(decided[name].argmax(1), still[name].argmax(1)) for name in CLASSES)


def config(**learn):
    return TrainConfig(
        DataConfig("digits", shots=20, test=0.7),
        BackboneConfig("glyphnet"),
        learn=LearnConfig(epochs=2, **learn),
        run=RunConfig(seed=1),
    )


@pytest.mark.parametrize("refit", [True, False])
def test_training_calibrates_and_decides_the_same(refit):
    plain, calibrated = train(config(calibrate=False, refit=refit)), train(config(refit=refit))
    assert plain.result["temperatures"] == {}
    assert set(calibrated.result["temperatures"]) == {"object", "domain"}
    ((_, before),), ((_, after),) = plain.tests, calibrated.tests
    for name, temperature in calibrated.result["temperatures"].items():
        expected = torch.from_numpy(before[name]).log().div(temperature).softmax(1)
        np.testing.assert_allclose(after[name], expected, atol=1e-3)  # the result has 4 digits of the temperature
        assert plain.result["test"][name]["accuracy"] == calibrated.result["test"][name]["accuracy"]
    errors = [run.result["test"]["object"]["calibration_error"] for run in (plain, calibrated)]
    assert errors[1] < errors[0]


def test_without_validation_images_nothing_is_calibrated():
    run = train(
        TrainConfig(DataConfig("digits", shots=6, val=0.0), BackboneConfig("glyphnet"), learn=LearnConfig(epochs=1))
    )
    assert run.result["temperatures"] == {}


def test_a_saved_model_is_calibrated(tmp_path):
    from transfer.runs.checkpoint import load_models

    run = train(
        TrainConfig(
            DataConfig("digits", shots=6),
            BackboneConfig("glyphnet"),
            HeadConfig(hidden=(16,)),
            learn=LearnConfig(epochs=2),
            run=RunConfig(out=tmp_path / "run"),
        )
    )
    (saved,), (kept,) = load_models(tmp_path / "run").values(), run.models.values()
    for key, tensor in kept.heads.state_dict().items():
        assert torch.equal(saved.heads.state_dict()[key], tensor)
    assert json.loads((tmp_path / "run" / "result.json").read_text())["temperatures"] == run.result["temperatures"]


def correct_rows(model, feed):
    with torch.no_grad():
        return {name: out.argmax(1) for name, out in model.heads(feed.features).items()}


@pytest.mark.parametrize("case", ["one row", "one correct row", "all correct", "a class absent", "one class alone"])
def test_validation_rows_that_say_little(case):
    """Of two and of three classes: the likeliest temperature under the prior, within the bounds."""
    model = make_model(softmax_specs())
    feed, rows, labels = make_rows(1 if "row" in case else 40)
    if "correct" in case:
        labels = correct_rows(model, feed)
    elif "class" in case:
        labels = {name: label.clamp_max(1 if "absent" in case else 0) for name, label in labels.items()}
    found = fit_temperatures(model, feed, rows, labels)
    with torch.no_grad():
        out = model.heads(feed.features)
    for name in CLASSES:
        assert found[name] == pytest.approx(best_on_grid(out[name], labels[name]), rel=0.01)
        assert math.exp(BOUNDS[0]) < found[name] < math.exp(BOUNDS[1])


def test_a_temperature_is_bounded_however_many_rows_are_correct_or_wrong():
    model = make_model(softmax_specs())
    for name in CLASSES:
        torch.nn.init.zeros_(model.heads.layer(name)[-1].bias)
    feed, rows, _ = make_rows(50_000)
    feed.features *= 1e-3  # unsure of all of them
    labels = correct_rows(model, feed)
    low, high = map(math.exp, BOUNDS)
    assert fit_temperatures(model, feed, rows, labels) == {"object": low, "domain": low}
    feed.features *= 1e5  # certain of all of them
    wrong = {name: (label + 1) % len(CLASSES[name]) for name, label in labels.items()}
    assert fit_temperatures(model, feed, rows, wrong) == {"object": high, "domain": high}


def test_a_number_beside_a_calibrated_head_keeps_its_weights():
    model = make_model([HeadSpec("object", classes=CLASSES["object"]), HeadSpec("age", "regression")])
    feed, rows, labels = make_rows()
    labels = {"object": labels["object"], "age": torch.randn(80)}
    before = {name: tensor.clone() for name, tensor in model.heads.layer("age").state_dict().items()}
    apply_temperatures(model.heads, fit_temperatures(model, feed, rows, labels))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.heads.layer("age").state_dict().items())


@pytest.mark.parametrize("accuracy", [0.5, 0.9, 1.0])
def test_confidence_is_matched_to_an_estimate_of_the_accuracy(accuracy):
    logits = 3 * torch.randn(60, 4, generator=torch.Generator().manual_seed(2))
    temperature = match_confidence(logits, accuracy)
    confidences = []
    for row in logits.tolist():
        powers = [math.exp(value / temperature) for value in row]
        confidences.append(max(powers) / sum(powers))
    assert sum(confidences) / 60 == pytest.approx((60 * accuracy + 1) / 62, abs=1e-6)


def test_an_estimate_that_no_temperature_reaches_takes_a_bound():
    certain, even = torch.eye(2)[[0, 1] * 30] * 1e6, torch.zeros(60, 2)
    assert match_confidence(certain, 0.2) == math.exp(BOUNDS[1])
    assert match_confidence(even, 0.9) == math.exp(BOUNDS[0])
    assert match_confidence(torch.full((60, 2), math.nan), 0.9) == 1.0
