import numpy as np
import pytest
from wrong_labels import WRONG

from transfer.data.corrections import CorrectionFile
from transfer.errors import TransferError
from transfer.server.review import Review


def test_wrong_labels_are_to_be_reviewed_with_the_true_class_as_likeliest(review, images):
    assert set(WRONG) <= set(review.queue)
    assert sorted(review.queue[:3]) == WRONG
    state = review.state()
    assert [item["row"] for item in state["items"]] == review.queue
    for item in state["items"][:3]:
        assert item["likely"][0][0] == images.objects[images.object[item["row"]]]
        assert item["given"] == item["label"] != item["likely"][0][0]
        assert item["given"] not in [name for name, _ in item["likely"]]
    assert state["classes"] == ["blue", "green", "red"]


def test_decisions_are_stored_shown_and_undone(review):
    row = WRONG[0]
    assert review.decide(row, "relabel", " a  new\nclass ", seen=0)
    assert (review.item(row)["label"], review.item(row)["decision"], review.item(row)["seen"]) == (
        "a new class",
        "relabel",
        1,
    )
    assert "a new class" in review.state()["classes"]
    assert review.decide(row, "exclude", seen=1)
    assert review.item(row)["decision"] == "exclude"
    assert review.decide(row, "undo", seen=2)
    assert review.item(row)["label"] == "a new class"
    assert review.decide(row, "undo", seen=3)
    assert (review.item(row)["label"], review.item(row)["decision"]) == (review.given[row], "")
    lines = review.file.read()
    assert [each.action for each in lines] == ["relabel", "exclude", "undo", "undo"]
    assert {each.sha256 for each in lines} == {review.data.inspection.sha256[row]}
    assert [each.new for each in lines] == ["a new class", "", "", ""]


def test_a_second_review_of_the_file_sees_and_keeps_the_decisions(review, reviewed):
    other = Review(reviewed, CorrectionFile(review.file.path))
    assert review.decide(5, "accept", seen=0)
    assert not other.decide(5, "exclude", seen=0)
    assert other.item(5)["decision"] == "accept"
    assert other.decide(5, "exclude", seen=other.item(5)["seen"])
    assert review.item(5)["decision"] == "exclude"


def test_a_round_leaves_out_what_was_decided_and_learns_from_it(review, images):
    for row in review.queue:
        true = images.objects[images.object[row]]
        review.decide(row, "relabel", true, seen=0)
    review.rank()
    assert review.round == 2
    assert not set(review.queue) & set(WRONG)
    assert review.queue == []  # all labels are correct now


def test_a_review_resumes(review, reviewed):
    first = review.queue[0]
    review.decide(first, "accept", seen=0)
    assert first not in Review(reviewed, CorrectionFile(review.file.path)).queue


def test_of_many_classes_only_likely_ones_are_shown_and_three_at_least(review, monkeypatch):
    monkeypatch.setattr("transfer.server.review.LEAST_SHOWN", 1)
    row = review.queue[0]
    (_, p), *more = review.item(row)["likely"]
    assert p > 0.5
    assert all(p >= 0.005 for _, p in more)
    review._ranking.probabilities[row] = 1e-3
    assert len(review.item(row)["likely"]) == 1


def test_excluded_images_train_no_probe(review):
    for row in range(24):
        review.decide(row, "exclude", seen=0)
    review.rank()
    assert not set(review.queue) & set(range(24))
    assert len(review.item(0)["likely"]) == 2  # but they are predicted


def test_chosen_images_are_shown_in_their_order_each_once(reviewed, tmp_path):
    review = Review(reviewed, CorrectionFile(tmp_path / "a.csv"), [7, 3, 7, 40])
    assert review.queue == [7, 3, 40]
    review.decide(3, "accept", seen=0)
    review.rank()
    assert review.queue == [7, 3, 40]


def test_images_without_labels_are_reviewed_by_naming_classes(reviewed, tmp_path):
    from dataclasses import replace

    table = reviewed.table
    unknown = replace(table.targets["object"], values=np.full(len(table), -1), classes=())
    data = replace(reviewed, table=replace(table, targets=table.targets | {"object": unknown}))
    review = Review(data, CorrectionFile(tmp_path / "a.csv"), range(48))
    assert review.state()["items"][0]["likely"] == []
    with pytest.raises(TransferError, match="no label to accept"):
        review.decide(0, "accept", seen=0)
    for row in (*range(0, 6), *range(8, 14)):
        review.decide(row, "relabel", "first" if row < 8 else "second", seen=0)
    review.rank()
    assert review.item(7)["likely"][0][0] == "first"


@pytest.mark.parametrize(
    ("row", "action", "new", "message"),
    [
        (48, "accept", "", "no image 48"),
        (-1, "accept", "", "no image -1"),
        (0, "delete", "", "no action 'delete'"),
        (0, "relabel", "  ", "needs the name"),
        (0, "undo", "", "no decision to undo"),
    ],
)
def test_what_makes_no_sense_is_refused(review, row, action, new, message):
    with pytest.raises(TransferError, match=message):
        review.decide(row, action, new, seen=0)
    assert review.file.read() == []
