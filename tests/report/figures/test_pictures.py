import base64
import io

import numpy as np
import pytest
from PIL import Image

from transfer.report.figures.pictures import INFERNO_RGB, _overlay, gradcam_cards, image_cards
from transfer.report.load import read_saved_run


def test_a_card_says_true_against_predicted_as_percents_and_marks(made):
    run = read_saved_run(made())
    found = image_cards(run, [0, 1, 2, 99])
    assert [card["row"] for card in found] == [0, 1, 2]
    for card in found:
        row = run.predictions[card["row"]]
        assert card["true"] == [row["domain"], row["object"]]
        assert card["predicted"][1] == (row["object_predicted"], round(100 * float(row["object_probability"])))
        assert card["marks"] == ["O", "O" if row["object"] == row["object_predicted"] else "X"]
    run.predictions[0]["object"] = ""
    (unknown,) = image_cards(run, [0])
    assert (unknown["true"][1], unknown["marks"][1]) == ("?", "")


def test_colours_of_heat_are_those_of_matplotlib():
    from matplotlib import colormaps

    strength = np.linspace(0, 1, 101)
    places = np.linspace(0, 1, len(INFERNO_RGB))
    found = np.stack([np.interp(strength, places, band) for band in INFERNO_RGB.T], 1)
    assert np.abs(found - colormaps["inferno"](strength)[:, :3]).max() < 0.04


def test_heat_lies_where_it_is():
    file = io.BytesIO()
    Image.new("RGB", (40, 40), (90, 90, 90)).save(file, "JPEG", quality=95)
    jpeg = base64.b64encode(file.getvalue()).decode()
    heat = [[0.0, 0.0], [0.0, 1.0]]
    data = base64.b64decode(_overlay(jpeg, heat).partition(",")[2])
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), dtype=float)
    assert pixels.shape == (40, 40, 3)
    assert pixels[:10, :10].mean() == pytest.approx(90, abs=4)
    assert pixels[35:, 35:, 0].mean() > pixels[:10, :10, 0].mean() + 50


def test_what_was_explained_names_answer_and_truth(made):
    run = read_saved_run(made(wrong=1.0))
    (card,) = gradcam_cards(run)
    told = run.predictions[1]
    assert [(what, name) for what, name, _ in card["maps"]] == [
        ("answer", told["object_predicted"]),
        ("truth", told["object"]),
    ]
    assert gradcam_cards(read_saved_run(made("bare", bare=True))) == []
