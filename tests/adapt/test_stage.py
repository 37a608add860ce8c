import numpy as np
import pytest
import torch

from transfer.adapt.stage import BATCH


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
        pair = stage.pair
        assert stage.hold_out == held
        wanted = pair.train if held else np.sort(np.concatenate([pair.train, pair.val]))
        assert (stage.source == wanted).all()
        assert (np.flatnonzero(stage.target.numpy()) == np.union1d(pair.labelled, pair.unlabelled)).all()
        assert (stage.labels.numpy()[pair.unlabelled] == -1).all()
        assert (stage.labels.numpy()[pair.labelled] >= 0).all()
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
    assert len(order) < BATCH


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
