import unicodedata
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.ft2font import FT2Font
from PIL import Image
from sklearn.datasets import load_sample_images

from transfer.data.sets import glyphs
from transfer.data.sets.glyphs import LETTERS, PRETRAINING, PRINTED, SIZE, Pose

STILL = Pose((0.75, 0.75), 0, 0, 0, 0)
# They have codes for letters and digits, but draw mathematical signs, old-style figures or one placeholder for all.
SYMBOLS = {"cmex10", "cmmi10", "cmsy10", "LastResortHE-Regular"}


def faces(families):
    return [face for family in families.values() for face in family]


def test_no_family_is_on_both_sides_and_all_are_listed():
    printed, pretraining = faces(PRINTED), faces(PRETRAINING)
    assert len({*printed, *pretraining}) == len(printed) + len(pretraining)
    names = [{FT2Font(str(glyphs.font_file(f))).family_name for f in side} for side in (printed, pretraining)]
    assert not names[0] & names[1]
    assert not any("DejaVu" in name for name in names[0])  # sisters of one design are kept together
    bundled = set()
    for file in Path(matplotlib.get_data_path(), "fonts", "ttf").glob("*.ttf"):
        if {ord(c) for c in "AZaz09"} <= set(FT2Font(str(file)).get_charmap()):
            bundled.add(file.stem)
    assert bundled - SYMBOLS == {*printed, *pretraining}


def test_letters_are_letters_that_all_pretraining_faces_have():
    assert len(set(LETTERS)) == len(LETTERS) > 100
    assert all(c.isalpha() and unicodedata.numeric(c, None) is None for c in LETTERS)
    for face in faces(PRETRAINING):
        assert {ord(c) for c in LETTERS} <= set(FT2Font(str(glyphs.font_file(face))).get_charmap())


def outline(face: str, character: str) -> np.ndarray:
    """A character's shape, centred in 24 x 24 pixels with its longer side filling them, of mean 0 and norm 1."""
    shape = glyphs.template(face, character)
    shape = shape.crop(shape.getbbox())
    scale = 24 / max(shape.size)
    small = shape.resize([max(1, round(side * scale)) for side in shape.size], Image.Resampling.BILINEAR)
    square = Image.new("L", (24, 24))
    square.paste(small, ((24 - small.size[0]) // 2, (24 - small.size[1]) // 2))
    values = np.asarray(square, float).ravel()
    values -= values.mean()
    return values / np.linalg.norm(values)


def test_no_letter_looks_like_a_digit():
    for face in faces(PRETRAINING):
        digits = np.array([outline(face, d) for d in "0123456789"])
        for c in LETTERS:
            assert np.max(digits @ outline(face, c)) < 0.75, (face, c)
    assert outline("DejaVuSansMono", "O") @ outline("DejaVuSansMono", "0") > 0.75  # so that O is left out


def test_template_is_cut_to_its_ink():
    shape = np.asarray(glyphs.template("STIXGeneral", "4"))
    assert shape[0].max() == shape[-1].max() == shape[:, 0].max() == shape[:, -1].max() == 0
    assert min(shape[1].max(), shape[-2].max(), shape[:, 1].max(), shape[:, -2].max()) > 0
    with pytest.raises(ValueError, match="has no glyph"):
        glyphs.template("STIXGeneral", " ")


def test_a_still_pose_only_scales_and_centres():
    shape = glyphs.template("DejaVuSans-Bold", "R")
    ink = glyphs.posed(shape, STILL, np.random.default_rng(0))
    scale = 0.75 * SIZE / max(shape.size)
    side = SIZE / scale  # the square of the template that fills the image
    x, y = (shape.size[0] - side) / 2, (shape.size[1] - side) / 2
    wide = Image.new("L", (400, 400))
    wide.paste(shape, (200, 200))
    box = (200 + x, 200 + y, 200 + x + side, 200 + y + side)
    expected = np.asarray(wide.resize((SIZE, SIZE), Image.Resampling.BILINEAR, box=box), float) / 255
    assert np.corrcoef(ink.ravel(), expected.ravel())[0, 1] > 0.97
    rows, columns = np.nonzero(ink > 0.5)
    assert abs(rows.min() + rows.max() - SIZE + 1) <= 2
    assert abs(columns.min() + columns.max() - SIZE + 1) <= 2
    assert abs(rows.max() - rows.min() + 1 - 0.75 * SIZE) <= 3


def test_a_turned_pose_turns():
    bar = Image.new("L", (44, 12))
    bar.paste(255, (2, 2, 42, 10))
    angles = []
    for seed in range(20):
        ink = glyphs.posed(bar, Pose((0.8, 0.8), 40, 0, 0, 0), np.random.default_rng(seed))
        rows, columns = np.nonzero(ink > 0.5)
        angles.append(np.rad2deg(np.arctan(np.polyfit(columns, rows, 1)[0])))
    assert min(angles) < -20
    assert max(angles) > 20
    assert max(np.abs(angles)) < 42


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(LETTERS))
def test_a_pose_follows_from_its_seed(seed, character):
    pose = Pose(wobble=0.05)
    one, other = (
        glyphs.posed(glyphs.template("DejaVuSerif", character), pose, np.random.default_rng(seed)) for _ in "ab"
    )
    assert one.shape == (SIZE, SIZE)
    assert one.dtype == np.float32
    assert 0 <= one.min() <= one.max() <= 1
    assert one.max() > 0.3
    assert np.array_equal(one, other)


def test_restroked_makes_thicker_and_thinner():
    ink = glyphs.posed(glyphs.template("DejaVuSans", "H"), STILL, np.random.default_rng(0))
    assert np.abs(glyphs.restroked(ink, 0, 0.5, 1) - ink).max() < 0.01
    thick, thin = (glyphs.restroked(ink, 1.0, level, 4) for level in (0.2, 0.7))
    assert thick.sum() > 1.2 * ink.sum()
    assert thin.sum() < 0.8 * ink.sum()


def test_resampled_keeps_only_coarse_shape():
    fine = np.tile(np.float32([[0, 1], [1, 0]]), (SIZE // 2, SIZE // 2))
    assert np.ptp(glyphs.resampled(fine, 8)) < 0.02
    coarse = np.kron(np.float32([[0, 1], [0, 0]]), np.ones((SIZE // 2, SIZE // 2), np.float32))
    assert np.abs(glyphs.resampled(coarse, 16) - coarse).mean() < 0.05


@given(st.integers(0, 2**32), st.floats(0, 0.5))
def test_two_colours_differ_in_luminance(seed, contrast):
    ink, paper = glyphs.two_colours(np.random.default_rng(seed), contrast)
    luminance = [0.299 * c[0] + 0.587 * c[1] + 0.114 * c[2] for c in (ink, paper)]
    assert abs(luminance[0] - luminance[1]) >= contrast - 1e-6


def test_halves_of_the_photographs_make_the_whole():
    for left, right, whole in zip(
        glyphs.photographs("left"), glyphs.photographs("right"), load_sample_images().images, strict=True
    ):
        assert np.array_equal(np.hstack([left, right]), whole)


@pytest.mark.parametrize("half", ["left", "right"])
def test_photo_patches_come_from_their_half(half, monkeypatch):
    flat = {"left": Image.new("RGB", (200, 150), (255, 0, 0)), "right": Image.new("RGB", (200, 150), (0, 255, 0))}
    monkeypatch.setattr(glyphs, "photographs", lambda side: (flat[side],) * 2)
    rng = np.random.default_rng(0)
    for _ in range(20):
        patch = glyphs.photo_patch(rng, half)
        assert patch.shape == (SIZE, SIZE, 3)
        assert np.all(patch == ([1, 0, 0] if half == "left" else [0, 1, 0]))


def test_gradient_stays_between_its_colours_and_clouds_around_theirs():
    rng = np.random.default_rng(0)
    start, end = np.float32([0.1, 0.9, 0.4]), np.float32([0.7, 0.2, 0.4])
    passage = glyphs.gradient(start, end, rng)
    assert np.all(passage >= np.minimum(start, end) - 1e-6)
    assert np.all(passage <= np.maximum(start, end) + 1e-6)
    assert np.ptp(passage[..., 0]) > 0.3
    blots = glyphs.clouds(start, 0.4, rng)
    assert np.all(np.abs(blots - start) <= 0.2 + 1e-6)
    assert np.ptp(blots) > 0.1


def test_ink_and_blend_by_hand():
    rng = np.random.default_rng(0)
    ground, ink, colour = rng.random((SIZE, SIZE, 3)), rng.random((SIZE, SIZE)), rng.random(3)
    inked, blended = glyphs.inked(ground, ink, colour), glyphs.blended(ground, ink)
    for y, x, c in rng.integers(0, (SIZE, SIZE, 3), (50, 3)):
        assert inked[y, x, c] == pytest.approx((1 - ink[y, x]) * ground[y, x, c] + ink[y, x] * colour[c])
        assert blended[y, x, c] == pytest.approx(abs(ground[y, x, c] - ink[y, x]))


def test_picture_rounds_clips_and_adds_noise():
    rng = np.random.default_rng(0)
    values = np.full((SIZE, SIZE, 3), 0.5, np.float32)
    values[0, 0] = (-1, 0.2, 7)
    still = np.asarray(glyphs.picture(values, 0, rng))
    assert still[0, 0].tolist() == [0, 51, 255]
    noisy = np.asarray(glyphs.picture(values, 0.1, rng), float)[1:]
    assert noisy.std() == pytest.approx(25.5, rel=0.05)
