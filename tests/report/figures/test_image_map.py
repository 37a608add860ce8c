import xml.etree.ElementTree as ET

import numpy as np

from transfer.report.figures.image_map import MAP_HEIGHT, MAP_PICTURE_SIDE, MAP_WIDTH, draw_image_map

PICTURE = "data:image/jpeg;base64,AAAA"


def drawn(*arguments):
    return ET.fromstring(str(draw_image_map(*arguments)))


def test_pictures_lie_within_the_map_and_are_titled():
    places = np.random.default_rng(0).normal(size=(6, 2)) * 50
    svg = drawn(places, [PICTURE] * 6, [f"<{i}>" for i in range(6)], ["a"] * 6)
    pictures = svg.findall("image")
    assert [picture.find("title").text for picture in pictures] == [f"<{i}>" for i in range(6)]
    x, y = (np.array([float(picture.get(key)) for picture in pictures]) for key in "xy")
    assert (x.min(), x.max(), y.min(), y.max()) == (0, MAP_WIDTH - MAP_PICTURE_SIDE, 0, MAP_HEIGHT - MAP_PICTURE_SIDE)
    assert np.argsort(x).tolist() == np.argsort(places[:, 0]).tolist()
    assert svg.findall("rect") == []


def test_domains_have_frames_of_their_own_colour_and_a_legend():
    svg = drawn(np.eye(3, 2), [PICTURE, PICTURE, ""], ["", "", ""], ["a", "b", "b"])
    assert len({frame.get("stroke") for frame in svg.findall("rect")}) == 2
    assert [text.text for text in svg.findall("text")] == ["a", "b"]
    assert len(svg.findall("image")) == 2
