import logging
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from course.config import NetworkConfig, ScratchConfig
from course.networks import build
from course.trainer import compute_loss, split_into_batches, train_from_scratch
from torch import nn
from torch.nn import functional as F

from transfer.errors import TransferError

SIZES = {"domain": 2, "object": 3}
TINY = ScratchConfig(NetworkConfig(hidden=(6, 5)), side=8, lr=1e-3, epochs=2, batch_size=7, device="cpu")


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


class PlainMlp:
    """The course's network in the course's own terms: float64, one 5-wide output layer with two softmaxes."""

    def __init__(self, network: nn.Module) -> None:
        linears = [m for m in network.modules() if isinstance(m, nn.Linear)]
        self.weights = [m.weight.detach().double().numpy().copy() for m in linears]
        self.biases = [m.bias.detach().double().numpy().copy() for m in linears]

    def forward(self, x: np.ndarray) -> list[np.ndarray]:
        outputs = [x.reshape(len(x), -1).astype(float)]
        for i, (w, b) in enumerate(zip(self.weights, self.biases, strict=True)):
            z = outputs[-1] @ w.T + b
            outputs.append(z if i == len(self.weights) - 1 else np.maximum(z, 0))
        return outputs

    def cost(self, x: np.ndarray, domain: np.ndarray, thing: np.ndarray) -> float:
        logits = self.forward(x)[-1]
        rows = np.arange(len(x))
        return float(
            -np.log(softmax(logits[:, :2])[rows, domain]).mean() - np.log(softmax(logits[:, 2:])[rows, thing]).mean()
        )

    def gradients(self, x: np.ndarray, domain: np.ndarray, thing: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        outputs = self.forward(x)
        wanted = np.concatenate([np.eye(2)[domain], np.eye(3)[thing]], 1)
        predicted = np.concatenate([softmax(outputs[-1][:, :2]), softmax(outputs[-1][:, 2:])], 1)
        g, found = (predicted - wanted) / len(x), []
        for i in reversed(range(len(self.weights))):
            found.append((g.T @ outputs[i], g.sum(0)))
            g = (g @ self.weights[i]) * (outputs[i] > 0)
        return found[::-1]


def batch_of(data: Any, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return data.pixels[rows], data.table.domain[rows], data.table.object[rows]


def test_loss_and_gradient_are_the_plain_ones(coloured: Any) -> None:
    torch.manual_seed(0)
    network = build(NetworkConfig(hidden=(6, 5), initialisation="xavier"), 8, 5)
    plain = PlainMlp(network)
    x, domain, thing = batch_of(coloured, np.arange(10))
    labels = {"object": torch.from_numpy(thing), "domain": torch.from_numpy(domain)}
    cost = compute_loss(network(torch.from_numpy(x).float()), labels, SIZES)
    assert float(cost.detach()) == pytest.approx(plain.cost(x, domain, thing), rel=1e-5)
    cost.backward()
    linears = [m for m in network.modules() if isinstance(m, nn.Linear)]
    for linear, (weight, bias) in zip(linears, plain.gradients(x, domain, thing), strict=True):
        np.testing.assert_allclose(linear.weight.grad, weight, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(linear.bias.grad, bias, rtol=1e-3, atol=1e-6)


def test_the_gradient_at_the_output_is_each_head_s_own_side_by_side() -> None:
    logits = torch.randn(6, 5, requires_grad=True)
    labels = {"domain": torch.arange(6) % 2, "object": torch.arange(6) % 3}
    compute_loss(logits, labels, SIZES).backward()
    both = [logits.detach()[:, part].clone().requires_grad_() for part in (slice(0, 2), slice(2, 5))]
    for part, label in zip(both, labels.values(), strict=True):
        F.cross_entropy(part, label).backward()
    torch.testing.assert_close(logits.grad, torch.cat([part.grad for part in both], 1))


def test_unknown_labels_cost_nothing() -> None:
    logits = torch.randn(6, 5)
    labels = {"domain": torch.tensor([0, 1, -1, -1, -1, 0]), "object": torch.full((6,), -1)}
    known = torch.tensor([0, 1, 5])
    wanted = F.cross_entropy(logits[known, :2], labels["domain"][known])
    assert float(compute_loss(logits, labels, SIZES)) == pytest.approx(float(wanted))


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_two_epochs_are_those_of_the_plain_equations(coloured: Any, optimizer: str) -> None:
    """Order of images, last batch, loss, update: all by hand."""
    config = replace(TINY, optimizer=optimizer, inputs="unit", lr=0.05)
    config = replace(config, network=replace(config.network, initialisation="he"))
    result = train_from_scratch(config, coloured, seed=3)
    torch.manual_seed(3)
    plain = PlainMlp(build(config.network, 8, 5))
    moments = [
        [np.zeros_like(p), np.zeros_like(p)] for pair in zip(plain.weights, plain.biases, strict=True) for p in pair
    ]
    rng, count = np.random.default_rng(3), 0
    train = coloured.parts.train
    for line in result["epochs"]:
        order, costs, correct = rng.permutation(train), [], np.zeros(2)
        for start in range(0, len(train), 7):
            rows, count = order[start : start + 7], count + 1
            x, domain, thing = batch_of(coloured, rows)
            logits = plain.forward(x / 255)[-1]
            correct += [(logits[:, :2].argmax(1) == domain).sum(), (logits[:, 2:].argmax(1) == thing).sum()]
            costs.append(plain.cost(x / 255, domain, thing) * len(rows))
            gradients = [g for pair in plain.gradients(x / 255, domain, thing) for g in pair]
            held = [p for pair in zip(plain.weights, plain.biases, strict=True) for p in pair]
            for p, g, (m, v) in zip(held, gradients, moments, strict=True):
                m[:], v[:] = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
                adam = m / (1 - 0.9**count) / (np.sqrt(v / (1 - 0.999**count)) + 1e-8)
                p -= 0.05 * (g if optimizer == "sgd" else adam)
        assert line["loss"] == pytest.approx(sum(costs) / len(train), rel=1e-3)
        assert list(line["train"].values()) == pytest.approx(correct / len(train), abs=0.03)
        held_out = coloured.parts.val
        logits = plain.forward(coloured.pixels[held_out] / 255)[-1]
        hits = (logits[:, 2:].argmax(1) == coloured.table.object[held_out]).mean()
        assert line["val"]["object"] == pytest.approx(hits, abs=0.13)
    test = coloured.parts.test
    logits = plain.forward(coloured.pixels[test] / 255)[-1]
    for head, part, true in (("domain", slice(0, 2), "domain"), ("object", slice(2, 5), "object")):
        hits = (logits[:, part].argmax(1) == getattr(coloured.table, true)[test]).mean()
        assert result["test"][head]["accuracy"] == pytest.approx(hits, abs=0.09)


@pytest.mark.parametrize("network", ["mlp", "cnn"])
def test_what_can_be_learned_is_learned(coloured: Any, network: str) -> None:
    sizes = (16,) if network == "mlp" else (8, 16)
    easy = ScratchConfig(
        NetworkConfig(network, sizes, initialisation="he", batch_norm=network == "cnn"),
        inputs="standardised",
        side=8,
        optimizer="adam",
        lr=0.01,
        epochs=25,
        device="cpu",
    )
    result = train_from_scratch(easy, coloured)
    assert result["test"]["object"]["accuracy"] == 1
    assert result["test"]["domain"]["accuracy"] > 0.9
    assert result["test"]["object"]["n"] == len(coloured.parts.test)
    assert [line["epoch"] for line in result["epochs"]] == list(range(1, 26))
    assert result["epochs"][-1]["loss"] < result["epochs"][0]["loss"]
    assert [layer["layer"] for layer in result["layers"]["end"]][-1] == "output"
    assert result["seconds"]["epoch"] == pytest.approx(result["seconds"]["train"] / 25, rel=0.1)


def test_the_same_seed_is_the_same_run_and_another_is_not(coloured: Any) -> None:
    first, same, other = (train_from_scratch(TINY, coloured, seed=seed) for seed in (0, 0, 1))
    for result in (first, same, other):
        for line in result["epochs"]:
            del line["seconds"]
    assert first["epochs"] == same["epochs"] != other["epochs"]
    assert first["layers"] == same["layers"]


def test_optimizers_start_from_the_same_weights_and_see_the_same_order(coloured: Any) -> None:
    still = [train_from_scratch(replace(TINY, optimizer=name, lr=1e-12), coloured, seed=5) for name in ("sgd", "adam")]
    assert still[0]["layers"]["start"] == still[1]["layers"]["start"]
    assert still[0]["epochs"][0]["loss"] == pytest.approx(still[1]["epochs"][0]["loss"], rel=1e-6)


def test_progress_lines(coloured: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="transfer"):
        result = train_from_scratch(replace(TINY, epochs=12), coloured, name="NAME")
    lines = [line for record in caplog.records for line in record.getMessage().splitlines()]
    assert lines[0] == "Model NAME train started:"
    assert [line.split(":")[0] for line in lines[1:3]] == ["    Epoch 10", "    Epoch 12"]
    line = result["epochs"][9]
    accuracy = f"{line['train']['domain']:.3f}+{line['train']['object']:.3f}"
    val = f"{line['val']['domain']:.3f}+{line['val']['object']:.3f}"  # fewer than 100 images: all of them
    assert lines[1].startswith(f"    Epoch 10: cost={line['loss']:.3f}, accuracy={accuracy}/{val} (")
    assert lines[3].startswith("Model NAME train ended in ")
    accuracies = [result["test"][head]["accuracy"] for head in ("domain", "object")]
    assert lines[4].startswith(f"Model NAME test report: accuracy = {accuracies[0]:.3f}+{accuracies[1]:.3f}, (")
    assert lines[5] == "object"
    assert all(" => estimated colour" in line for line in lines[6:9])
    assert lines[9] == "domain"
    assert len(lines) == 13


def test_examples_can_be_left_out(coloured: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="transfer"):
        train_from_scratch(replace(TINY, epochs=1), coloured, examples=0)
    assert "estimated" not in caplog.text


def test_without_test_or_validation_images(coloured: Any) -> None:
    none = np.array([], np.int64)
    bare = replace(coloured, parts=replace(coloured.parts, val=none, test=none))
    result = train_from_scratch(replace(TINY, epochs=1), bare)
    assert result["test"] == {}
    assert "val" not in result["epochs"][0]


def test_a_set_with_one_domain_has_no_domain_head(coloured: Any) -> None:
    rows = coloured.table.domain == 0
    domain = replace(coloured.table.targets["domain"], classes=("dark",))
    table = replace(coloured.table.take(rows), targets={**coloured.table.take(rows).targets, "domain": domain})
    parts = replace(coloured.parts, train=np.arange(20), val=np.arange(20, 25), test=np.arange(25, 30))
    result = train_from_scratch(TINY, replace(coloured, table=table, pixels=coloured.pixels[rows], parts=parts))
    assert list(result["test"]) == ["object"]


def test_batch_norm_meets_no_batch_of_one(coloured: Any) -> None:
    config = replace(TINY, batch_size=13, network=replace(TINY.network, batch_norm=True))  # 40 = 3 * 13 + 1
    assert all(np.isfinite(line["loss"]) for line in train_from_scratch(config, coloured)["epochs"])
    assert [part.tolist() for part in split_into_batches(torch.arange(5), 2)] == [[0, 1], [2, 3, 4]]
    assert [part.tolist() for part in split_into_batches(torch.arange(4), 2)] == [[0, 1], [2, 3]]
    assert [part.tolist() for part in split_into_batches(torch.arange(2), 1)] == [[0], [1]]
    assert [part.tolist() for part in split_into_batches(torch.arange(1), 2)] == [[0]]


def test_no_training_images(coloured: Any) -> None:
    empty = replace(coloured, parts=replace(coloured.parts, train=np.array([], np.int64)))
    with pytest.raises(TransferError, match="coloured: no training images"):
        train_from_scratch(TINY, empty)


def test_a_diverged_training_is_warned_about(coloured: Any) -> None:
    config = replace(TINY, lr=1e30, network=replace(TINY.network, activation="leaky_relu"))
    broken = train_from_scratch(config, coloured)
    assert broken["monitor"][0].startswith("rate too high: the loss became")
