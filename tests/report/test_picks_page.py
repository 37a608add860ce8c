from pathlib import Path

from PIL import Image

from transfer.curation.pick import PickedImage, PickResult
from transfer.report.page import write_contact_sheet
from transfer.report.picks_page import picks_page


def make_result(tmp_path, count=3, **more):
    images = []
    for i in range(count):
        file = tmp_path / f"<b>{i}&.png"
        if i < 2:
            Image.effect_noise((40, 30), 90).convert("RGB").resize((640, 480)).save(file)
        else:
            file.write_bytes(b"")
        images.append(PickedImage(str(file), "street", 0.25, "typical", **more))
    return PickResult(tuple(images), "auto", 5, 90, 2, ("cat", "dog"), ("a note",), tmp_path / "picks.csv")


def test_cards_are_in_order_and_images_that_cannot_be_read_have_no_picture(tmp_path):
    values = picks_page(make_result(tmp_path, suggested="c" * 500, probability=0.504))
    assert [card["number"] for card in values["cards"]] == [1, 2, 3]
    assert [bool(card["picture"]) for card in values["cards"]] == [True, True, False]
    assert values["hidden"] == 1
    assert (values["cards"][0]["percent"], len(values["cards"][0]["suggested"])) == (50, 120)


def test_the_page_holds_all_and_escapes_names(tmp_path):
    file = write_contact_sheet(make_result(tmp_path, suggested="<i>", probability=0.5), tmp_path / "picks.html")
    page = file.read_text(encoding="utf-8")
    assert page.count("<figure") == 3
    assert page.count('src="data:image/jpeg;base64,') == 2
    assert "<b>0" not in page
    assert "<i>?" not in page
    assert "&lt;i&gt;?" in page
    assert "1 images have no picture" in page
    assert "a note" in page


def test_five_hundred_pictures_fit_into_ten_megabytes(tmp_path):
    result = make_result(tmp_path, 1)
    many = PickResult(result.images * 500, *list(vars(result).values())[1:])
    assert write_contact_sheet(many, tmp_path / "many.html").stat().st_size < 10_000_000
    assert Path(tmp_path / "many.html").read_text(encoding="utf-8").count("data:image/jpeg") == 500
