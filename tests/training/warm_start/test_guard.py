from dataclasses import replace

import numpy as np
import pytest

from transfer.feature_cache import TrunkCache
from transfer.training.warm_start.guard import Guard, make_guard, note_warm_start


def test_the_score_is_of_the_guarded_rows_and_heads_alone(images, taught) -> None:
    model, _ = taught()
    rows = np.array([0, 8, 16, 24])  # blue, green and red of the plain domain, blue of the striped one
    objects, domains = images.object[rows].copy(), images.domain[rows]
    objects[1] = 0  # wrong
    predictions = {"object": np.eye(3)[objects], "domain": np.eye(2)[1 - domains]}  # all domains are wrong
    guard = Guard(np.array([8, 16]), {"object": 0.9}, 0.0)
    assert guard.score(images, rows, predictions, model) == 0.5
    both = replace(guard, scores={"object": 0.9, "domain": 0.5})
    assert both.score(images, rows, predictions, model) == 0.25
    assert both.before == pytest.approx(0.7)


def test_as_much_may_be_lost_as_is_allowed() -> None:
    guard = Guard(np.arange(4), {"object": 0.75}, 0.25)
    assert guard.allowed == 0.25  # the standard error is 0.217
    assert Guard(np.arange(4), {"object": 0.75}, 0.2).allowed == pytest.approx((0.75 * 0.25 / 4) ** 0.5)
    assert guard.accepts(0.5)
    assert guard.accepts(1.0)
    assert not guard.accepts(0.49)


def test_the_old_score_is_that_of_the_old_model_on_the_present_labels(images, digests, taught) -> None:
    old, new = taught(seed=1)[0], taught(seed=2)[0]
    rows = np.arange(0, 48, 5)
    cache = TrunkCache()
    guard = make_guard(old, new, images, digests, rows, cache, 0.1)
    assert guard is not None
    assert guard.rows.tolist() == rows.tolist()
    assert set(guard.scores) == {"object", "domain"}
    feed = cache.feed(old, images.paths, digests, batch_size=8)
    import torch

    with torch.inference_mode():
        features = torch.cat([old.features(x).float() for _, x in feed.batches(rows)])
        decided = old.heads(features)["object"].argmax(1).numpy()
    assert guard.scores["object"] == (decided == images.object[rows]).mean()
    relabelled = images.targets | {"object": replace(images.targets["object"], values=np.full(48, decided[0]))}
    other = make_guard(old, new, replace(images, targets=relabelled), digests, rows, cache, 0.1)
    assert other is not None
    assert other.scores["object"] == (decided == decided[0]).mean()


def test_without_rows_or_a_head_in_common_there_is_no_guard(images, digests, taught) -> None:
    model = taught()[0]
    assert make_guard(model, model, images, digests, np.array([], np.int64), TrunkCache(), 0.1) is None
    one, other = taught(heads=("object",))[0], taught(heads=("domain",))[0]
    assert make_guard(one, other, images, digests, np.arange(4), TrunkCache(), 0.1) is None


def test_the_record_says_what_the_best_epoch_lost_and_whether_one_counted() -> None:
    guard = Guard(np.arange(8), {"object": 0.75}, 0.25)
    lines = [{"phase": "full", "old_val": score} for score in (0.5, 0.625, 0.875)]
    expected = {"validation_images": 8, "before": 0.75, "allowed": 0.25, "after": 0.625, "highest": 0.875}
    assert guard.record(lines, [2]) == expected | {"old_weights": False}
    assert guard.record(lines, []) == expected | {"after": None, "old_weights": True}
    probe = [{"phase": "probe", "head": "object"}, {"phase": "probe", "solved": {"object": 0.1}, "old_val": 0.75}]
    after_probe = [*probe, *lines]
    assert guard.record(after_probe, [{"object": 0.1}])["after"] == 0.75
    assert guard.record(after_probe, [{"object": 0.1}, 1])["after"] == 0.5
    assert note_warm_start(guard, [2]) == []
    (note,) = note_warm_start(guard, [])
    assert "more than 0.250 of the accuracy of 0.750 on 8 old validation images" in note
    (note,) = note_warm_start(None, [2])
    assert "no validation image of the old run" in note
