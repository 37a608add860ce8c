import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from transfer.data.images import augment as module
from transfer.data.images.augment import Augmentation, augment
from transfer.data.images.preprocessing import Preprocessing, prepare
from transfer.data.images.read import to_image, to_tensor

P = Preprocessing((3, 16, 24), (0.5, 0.5, 0.5), (0.2, 0.2, 0.2), "bilinear", 0.9)
COARSE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 6, 3), dtype=np.uint8))
IMAGE = to_tensor(COARSE.resize((40, 30), Image.Resampling.BICUBIC))


def test_no_augmentation_is_the_evaluation_view():
    rng = np.random.default_rng(0)
    assert torch.equal(augment(IMAGE, P, Augmentation(), rng), prepare(IMAGE, P))


def test_flip_mirrors_half_of_the_views():
    view = prepare(IMAGE, P)
    mirrored = 0
    for seed in range(60):
        got = augment(IMAGE, P, Augmentation(flip=True), np.random.default_rng(seed))
        is_mirrored = torch.equal(got, view.flip(2))
        assert is_mirrored or torch.equal(got, view)
        mirrored += is_mirrored
    assert 15 < mirrored < 45


@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 999))
def test_crops_have_the_area_and_aspect_asked_for(width, height, seed):
    left, top, right, bottom = module._random_box(width, height, (0.3, 0.6), np.random.default_rng(seed))
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    w, h = right - left, bottom - top
    if min(width, height) > 60 and max(width, height) < 1.3 * min(width, height):  # such crops exist
        assert 0.27 < w * h / (width * height) < 0.63
        assert 0.7 < w / h < 1.4


def test_crops_reach_every_corner():
    rng = np.random.default_rng(0)
    boxes = np.array([module._random_box(100, 80, (0.2, 0.4), rng) for _ in range(500)])
    assert (boxes[:, :2].min(0) <= 3).all()
    assert (boxes[:, 2:].max(0) >= [97, 77]).all()


def test_a_crop_shows_a_part_of_the_image():
    """On a picture whose red rises from left to right, a view's red range is as wide as its crop."""
    ramp = np.zeros((100, 100, 3), np.uint8)
    ramp[..., 0] = np.arange(0, 200, 2)
    spans = []
    for seed in range(50):
        view = augment(
            torch.from_numpy(ramp).permute(2, 0, 1),
            P,
            Augmentation(crop_scale=(0.25, 0.25)),
            np.random.default_rng(seed),
        )
        red = view[0].float().mean(0)
        assert (red.diff() >= 0).all()
        spans.append(float(red[-1] - red[0]))
    assert 0.4 * 200 < np.mean(spans) < 0.6 * 200


def test_jitter_changes_brightness_both_ways_and_stays_in_bounds():
    grey = torch.full((3, 30, 30), 120, dtype=torch.uint8)
    got = [augment(grey, P, Augmentation(jitter=0.4), np.random.default_rng(s)).float().mean() for s in range(50)]
    assert 120 * 0.59 < min(got) < 100
    assert 140 < max(got) < 120 * 1.41


def test_jitter_is_pils():
    """Brightness, contrast and saturation in this order, as PIL enhances them."""
    for seed in range(20):
        got = augment(IMAGE, P, Augmentation(jitter=0.4), np.random.default_rng(seed))
        rng = np.random.default_rng(seed)
        expected = to_image(prepare(IMAGE, P))
        for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
            expected = enhance(expected).enhance(rng.uniform(0.6, 1.4))
        assert (got.int() - to_tensor(expected).int()).abs().max() <= 3


def test_the_whole_image_as_a_crop_is_the_image_resized():
    square = Preprocessing((3, 30, 40), P.mean, P.std, "bicubic", 1.0)
    crop = Augmentation(crop_scale=(1.0, 1.0))
    boxes = [module._random_box(40, 30, (1.0, 1.0), np.random.default_rng(s)) for s in range(30)]
    seed = next(s for s, box in enumerate(boxes) if box == (0, 0, 40, 30))
    assert torch.equal(augment(IMAGE, square, crop, np.random.default_rng(seed)), IMAGE)


def test_what_is_needed_without_a_crop_is_the_evaluation_views():
    assert Augmentation(flip=True, jitter=0.2).needed(P) == P.needed


@settings(deadline=None)
@given(
    smallest=st.floats(0.02, 1.0),
    side=st.tuples(st.integers(8, 64), st.integers(8, 64)),
    longer=st.floats(1.0, 3.0),
    seed=st.integers(0, 999),
)
def test_the_smallest_crop_of_what_is_needed_fills_the_input(smallest, side, longer, seed):
    p = Preprocessing((3, *side), P.mean, P.std, "bilinear", 0.9)
    needed = Augmentation(crop_scale=(smallest, 1.0)).needed(p)
    width, height = needed, int(needed * longer)
    left, top, right, bottom = module._random_box(width, height, (smallest, smallest), np.random.default_rng(seed))
    assert min(right - left, bottom - top) >= max(side)


def test_a_smaller_crop_needs_more():
    p = Preprocessing((3, 224, 224), P.mean, P.std, "bilinear", 0.875)
    sides = [Augmentation(crop_scale=(smallest, 1.0)).needed(p) for smallest in (0.08, 0.35, 1.0)]
    assert sides == [1372, 656, 388]


def test_pca_colour_shifts_all_pixels_by_the_same_along_the_principal_components():
    """The shift is sum of alpha_i lambda_i p_i, each alpha normal with the deviation asked for, naively."""
    grey = torch.full((3, 16, 24), 128, dtype=torch.uint8)
    shifts = []
    for seed in range(400):
        got = augment(grey, P, Augmentation(pca=0.1), np.random.default_rng(seed))
        shift = (got.double() - 128).flatten(1)
        assert (shift == shift[:, :1]).all()
        rng = np.random.default_rng(seed)
        expected = np.zeros(3)
        for alpha, value, component in zip(
            rng.normal(0.0, 0.1, 3), module.PRINCIPAL_VALUES, module.PRINCIPAL_COMPONENTS.T, strict=True
        ):
            expected += 255 * alpha * value * component
        assert np.abs(shift[:, 0].numpy() - expected).max() <= 0.51
        shifts.append(expected)
    first = module.PRINCIPAL_COMPONENTS[:, 0]
    along = np.array(shifts) @ first / np.linalg.norm(shifts, axis=1)
    assert np.median(np.abs(along)) > 0.98  # the first varies by ten times as much as the others
    assert np.std(np.array(shifts) @ first) == pytest.approx(255 * 0.1 * 0.2175, rel=0.1)


def test_principal_components_are_directions_at_right_angles():
    assert np.allclose(module.PRINCIPAL_COMPONENTS.T @ module.PRINCIPAL_COMPONENTS, np.eye(3), atol=1e-3)


def test_pca_colour_stays_in_bounds():
    white = torch.full((3, 16, 24), 255, dtype=torch.uint8)
    views = [augment(white, P, Augmentation(pca=0.5), np.random.default_rng(s)) for s in range(20)]
    assert any((view == 255).all() for view in views)
    assert all(view.float().mean() > 128 for view in views)


@pytest.mark.parametrize("shape", [(300, 500), (500, 300), (40, 60)])
def test_resnets_scales_go_from_256_to_480_pixels_of_the_short_side_for_224(shape, monkeypatch):
    p = Preprocessing((3, 224, 224), P.mean, P.std, "bilinear", 0.875)
    scale, sizes = Augmentation(short_side=(256 / 224, 480 / 224)), []
    resize = module.resize
    monkeypatch.setattr(module, "resize", lambda image, size, how: sizes.append(size) or resize(image, size, how))
    image = torch.zeros((3, *shape), dtype=torch.uint8)
    for seed in range(60):
        assert augment(image, p, scale, np.random.default_rng(seed)).shape == (3, 224, 224)
    short = [min(size) for size in sizes]
    assert 256 <= min(short) < 275
    assert 461 < max(short) <= 480
    assert 340 < np.mean(short) < 396
    for height, width in sizes:
        assert height / width == pytest.approx(shape[0] / shape[1], rel=0.01)


def test_pieces_of_a_scaled_image_come_from_everywhere():
    """On a picture that shows its own coordinates, pieces begin at the top left and end at the bottom right."""
    y, x = np.mgrid[0:100, 0:100]
    place = torch.from_numpy(np.stack([2 * y, 2 * x, 0 * x]).astype(np.uint8))
    p = Preprocessing((3, 50, 50), P.mean, P.std, "bilinear", 1.0)
    views = [augment(place, p, Augmentation(short_side=(2.0, 2.0)), np.random.default_rng(s)) for s in range(300)]
    for side in (0, 1):
        first, last = [int(v[side, 0, 0]) for v in views], [int(v[side, -1, -1]) for v in views]
        assert min(first) <= 4
        assert max(last) >= 194
        assert all(end - begin == pytest.approx(98, abs=2) for begin, end in zip(first, last, strict=True))


def test_the_largest_scale_needs_most():
    p = Preprocessing((3, 224, 224), P.mean, P.std, "bilinear", 0.875)
    assert Augmentation(short_side=(256 / 224, 480 / 224)).needed(p) == 720
