import numpy as np
import pytest
import torch

from transfer.adaptation.task import EVALUATION_BATCH


def images_of(stage, rows):
    """Return what the whole backbone makes of `rows`, one image at a time."""
    model = stage.model.eval()
    out = []
    with torch.inference_mode():
        for row in rows:
            ((_, activation),) = stage.feed.batches(np.array([row]))
            out.append(model.features(activation).float())
    return torch.cat(out)


def test_rows_labels_and_sides(staged):
    for settings, held in (({}, False), ({"rule": "source_val"}, True), ({"rule": "auto"}, False)):
        stage, *_ = staged(target_labels=1, **settings)
        domains = stage.domains
        assert stage.hold_out == held
        wanted = domains.train if held else np.sort(np.concatenate([domains.train, domains.val]))
        assert (stage.source == wanted).all()
        assert (np.flatnonzero(stage.target.numpy()) == np.union1d(domains.labelled, domains.unlabelled)).all()
        assert (stage.labels.numpy()[domains.unlabelled] == -1).all()
        assert (stage.labels.numpy()[domains.labelled] >= 0).all()
        assert stage.classes == ("blue", "green", "red")
        assert len(stage.rows) == len(np.unique(stage.rows)) == 48


@pytest.mark.parametrize("policy", ["linear_probe", "partial:1", "full"])
def test_pooled_features_are_each_images_own(staged, policy):
    stage, *_ = staged(policy=policy)
    assert stage.frozen == (policy == "linear_probe")
    rows = np.array([40, 3, 3, 17])
    assert torch.allclose(stage.pooled(rows), images_of(stage, rows), atol=1e-4)
    assert stage.pooled(rows[:0]).shape == (0, stage.model.backbone.width)


@pytest.mark.parametrize("policy", ["linear_probe", "partial:1"])
def test_batches_come_in_order(staged, policy):
    stage, *_ = staged(policy=policy)
    order = np.array([5, 40, 5, 2, 7, 47, 1])
    out = list(stage.batches(order, 3, None, 0, 0))
    assert [rows.tolist() for rows, _ in out] == [[5, 40, 5], [2, 7, 47], [1]]
    with torch.no_grad():
        got = torch.cat([stage.features(activation, len(some)) for some, activation in out])
    assert torch.allclose(got, stage.pooled(order), atol=1e-4)
    assert len(order) < EVALUATION_BATCH


def test_a_stage_held_as_features_does_not_move(staged):
    stage, *_ = staged(policy="partial:1")
    held = stage.as_features()
    rows = np.arange(48)
    before = stage.pooled(rows)
    assert held.frozen
    assert not stage.frozen
    with torch.no_grad():
        for parameter in stage.model.backbone.parameters():
            parameter.mul_(1.5)
    assert torch.equal(held.pooled(rows), before)
    assert not torch.allclose(stage.pooled(rows), before)
    stage.restart()
    assert torch.allclose(stage.pooled(rows), before)
    frozen, *_ = staged()
    assert frozen.as_features() is frozen


def test_what_moved_moves_again(staged):
    stage, *_ = staged(policy="partial:1")
    assert stage.moved() == {}
    network = stage.model.backbone
    name = next(name for name, tensor in network.state_dict().items() if tensor.is_floating_point())
    before = network.state_dict()[name].clone()
    network.state_dict()[name].add_(1.0)
    moved = {name: tensor.clone() for name, tensor in stage.moved().items()}
    assert list(moved) == [name]
    stage.restart()
    assert stage.moved() == {}
    stage.move(moved)
    assert torch.equal(network.state_dict()[name], before + 1)
    stage.move({})
    assert stage.moved() == {}


@pytest.mark.parametrize("policy", ["linear_probe", "partial:1"])
def test_batches_from_a_number_on(staged, policy):
    stage, *_ = staged(policy=policy)
    order = np.random.default_rng(0).choice(stage.domains.unlabelled, 22)
    whole = [(rows.copy(), x.clone()) for rows, x in stage.batches(order, 5, None, 0, 0)]
    rest = [(rows.copy(), x.clone()) for rows, x in stage.batches(order, 5, None, 0, 0, 2)]
    assert len(rest) == len(whole) - 2 == 3
    for (rows, x), (wanted, y) in zip(rest, whole[2:], strict=True):
        assert np.array_equal(rows, wanted)
        assert torch.equal(x, y)
