"""Left-out classes: compared with probes that are solved on the other classes' rows alone."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from transfer.evaluation.uncertainty.unknown import UNKNOWN_SCORES, UnknownScore
from transfer.heads import HeadSpec
from transfer.heads.heads import Heads
from transfer.probes.left_out_classes import LEFT_OUT_GROUPS, measure_left_out
from transfer.probes.linear import solve_linear_probe

CLASSES = 5
SPECS = (HeadSpec("object", classes=tuple("abcde")), HeadSpec("domain", classes=("x", "y")))


def rows_of(n=200):
    g = torch.Generator().manual_seed(1)
    labels = torch.arange(n) % CLASSES
    features = torch.randn(n, 12, generator=g) + 2.5 * torch.eye(12)[labels]
    labels[:10] = -1
    return features, {"object": labels, "domain": torch.arange(n) % 2}


def test_each_group_is_found_by_a_probe_without_it():
    x, targets = rows_of()
    labels, heads = targets["object"], Heads(SPECS, 12)
    folds, l2 = np.random.default_rng(0).integers(0, 5, len(labels)), {"object": 0.05, "domain": 0.05}
    found = measure_left_out(heads, (x, targets), folds, {"object": 2.0}, 3, fixed_l2=l2)
    wanted = {name: [] for name in UNKNOWN_SCORES}
    order = np.random.default_rng(3).permutation(CLASSES)
    for group in range(LEFT_OUT_GROUPS):
        out = np.isin(labels.numpy(), order[group::LEFT_OUT_GROUPS])
        held = ~out & (labels.numpy() >= 0) & (folds == group)
        fitted = ~out & ~held & (labels.numpy() >= 0)
        classes = sorted(set(labels[fitted].tolist()))
        own = Heads((HeadSpec("object", classes=tuple("abcde"[k] for k in classes)),), 12)
        renamed = torch.tensor([classes.index(k) for k in labels[fitted].tolist()])
        solve_linear_probe(own, (x[fitted], {"object": renamed}), fixed_l2=l2)
        with torch.no_grad():
            logits = own(x)["object"] / 2.0
        for name in UNKNOWN_SCORES:
            score = UnknownScore.fitted(name, x[fitted], labels[fitted]).compute(x, logits).numpy()
            rows = held | out
            wanted[name].append(roc_auc_score(out[rows], score[rows]))
    for name, values in wanted.items():
        assert found[name] == pytest.approx(np.mean(values), abs=5e-3), name  # solved to the coarse tolerance
        assert found[name] > 0.6


def test_a_joint_head_leaves_classes_out_too():
    x, targets = rows_of()
    folds = np.random.default_rng(0).integers(0, 5, len(targets["object"]))
    found = measure_left_out(Heads(SPECS, 12, compose="joint"), (x, targets), folds, {}, 0, fixed_l2={"joint": 0.05})
    assert found.keys() == UNKNOWN_SCORES.keys()
    assert found["msp"] > 0.6


def test_features_of_left_out_classes_say_nothing_about_them():
    """Where left-out rows differ from others by nothing, they are not found, however many there are."""
    g = torch.Generator().manual_seed(0)
    labels = torch.arange(400) % 4
    features = torch.randn(400, 12, generator=g)
    folds = np.random.default_rng(0).integers(0, 5, len(labels))
    heads = Heads((HeadSpec("object", classes=tuple("abcd")),), 12)
    found = measure_left_out(heads, (features, {"object": labels}), folds, {}, 0, fixed_l2={"object": 0.05})
    assert all(0.35 < auroc < 0.65 for auroc in found.values()), found


def test_two_classes_cannot_spare_one():
    x, targets = rows_of()
    targets["object"] = targets["object"].clamp(max=1)
    assert measure_left_out(Heads(SPECS, 12), (x, targets), np.arange(200) % 5, {}, 0, fixed_l2={"object": 0.1}) == {}


def test_a_fold_without_images_is_no_comparison():
    x, targets = rows_of(13)  # three known rows, one a class
    folds = np.random.default_rng(0).integers(0, 5, len(targets["object"]))
    assert measure_left_out(Heads(SPECS, 12), (x, targets), folds, {}, 0, fixed_l2={"object": 0.1}) is not None
