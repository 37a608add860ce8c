from pathlib import Path

import pytest
from PIL import Image

from transfer.curation.pick import PickedImage, PickResult
from transfer.report.page import write_contact_sheet, write_simulation
from transfer.report.picks_page import picks_page, simulation_page


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


@pytest.fixture
def simulated():
    curve = {"accuracy": [0.2, 0.4], "propagated": [0.3, 0.6], "seen": [0.5, 1.0]}
    config = {"images": {"data": "/a/<b>set"}, "backbone": {"backbone": "glyphnet"}, "simulation": {"seeds": [0, 1]}}
    result = {"config": config, "classes": 2, "labels": [2, 4], "goal": 0.4}
    return result | {"curves": {"random": curve, "auto": curve}, "needed": {"random": 2.67, "auto": None}}


def test_simulated_picks_are_drawn_with_the_goal_and_the_labels_needed(simulated, tmp_path):
    page = write_simulation(simulated, tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 3
    assert page.count("stroke-dasharray") == 2  # the goal, not on the share of classes
    assert "&lt;b&gt;set: how many labels are enough?" in page
    assert "<script" not in page
    values = simulation_page(simulated)
    assert [(row["labels"], row["share"]) for row in values["needed"]] == [("3", "67"), ("> 4", None)]
    assert values["rows"][0] == ["2", "1.0", "0.200", "0.300", "0.500", "0.200", "0.300", "0.500"]


def test_without_a_goal_there_are_only_curves(simulated, tmp_path):
    page = write_simulation(simulated | {"goal": None, "needed": {}}, tmp_path / "page.html").read_text()
    assert "labels for an accuracy" not in page
    assert "stroke-dasharray" not in page
