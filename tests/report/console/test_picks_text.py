from transfer.curation.pick import PickedImage, PickResult
from transfer.report.console.picks_text import SHOWN_PICKS, picks_text


def make_result(count, **more):
    images = [PickedImage(f"/a/b/{i}\n.png", "", 0.25, "typical", **more) for i in range(count)]
    return PickResult(tuple(images), "auto", 5, 90, 2, ("cat", "dog"), ("a note",))


def test_each_image_has_a_row_with_what_is_known():
    text = picks_text(make_result(2, suggested="cat", probability=0.5))
    head, first, *_ = text.splitlines()
    assert head.split() == ["image", "suggested", "score", "why"]
    assert first.split() == ["b/0\\u000a.png", "cat", "0.50", "0.25", "typical"]
    assert "2 of 90 images without a label, 2 picked before, by auto; 5 have labels, of 2 classes" in text
    assert text.endswith("note: a note")


def test_long_lists_are_cut_and_what_is_unknown_has_no_column():
    text = picks_text(make_result(SHOWN_PICKS + 7))
    assert text.splitlines()[0].split() == ["image", "score", "why"]
    assert "… 7 more" in text
