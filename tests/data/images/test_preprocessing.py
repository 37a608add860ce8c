import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from timm.data import create_transform

from transfer.data.images.preprocessing import Preprocessing, locate_view, prepare, resize
from transfer.data.images.read import read_pixels, to_tensor
from transfer.errors import TransferError

SHARED = Path(__file__).parents[4] / "shared"
# PIL computes with weights of 22 bits, torchvision with ones of 15; the others are PIL's own.
GREY_LEVELS = {"nearest": 0, "box": 0, "hamming": 0, "lanczos": 0, "bilinear": 2, "bicubic": 2}
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


# timm 1.0.15 takes nearest for bilinear where sides differ
TIMMS = [how for how in GREY_LEVELS if f"interpolation={how}" in str(create_transform((3, 24, 40), interpolation=how))]


def noise(width, height, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def timms(image, p):
    transform = create_transform(
        p.input_size,
        interpolation=p.interpolation,
        mean=p.mean,
        std=p.std,
        crop_pct=p.crop_pct,
        crop_mode=p.crop_mode,
        normalize=False,
    )
    return transform(image)


@settings(max_examples=150, deadline=None)
@given(
    width=st.integers(1, 90),
    height=st.integers(1, 90),
    side=st.sampled_from([(32, 32), (24, 40), (31, 31), (40, 24)]),
    interpolation=st.sampled_from(["nearest", "bilinear", "bicubic", "box", "hamming", "lanczos"]),
    crop_pct=st.sampled_from([0.8, 0.875, 0.95, 1.0]),
    crop_mode=st.sampled_from(["center", "squash", "border"]),
)
@example(50, 50, (32, 32), "bilinear", 0.875, "center")
def test_the_evaluation_view_is_timms(width, height, side, interpolation, crop_pct, crop_mode):
    p = Preprocessing((3, *side), **IMAGENET, interpolation=interpolation, crop_pct=crop_pct, crop_mode=crop_mode)
    assume(interpolation in TIMMS)
    image = noise(width, height)
    if interpolation == "bicubic":  # far from black and white: clipping between the two passes depends on their order
        image = image.point(lambda value: 64 + value // 2)
    scaled = min(height * side[1], width * side[0]) / (max(width, height) * max(side))
    if crop_mode == "border" and scaled * min(side) < 1:
        return  # timm itself fails on a side that is scaled to nothing
    ours, theirs = prepare(to_tensor(image), p), timms(image, p)
    assert ours.shape == (3, *side)
    assert ours.dtype == torch.uint8
    assert (ours.int() - theirs.int()).abs().max() <= GREY_LEVELS[interpolation]


def test_a_side_scaled_to_nothing_is_one_pixel():
    p = Preprocessing((3, 16, 16), **IMAGENET, interpolation="bilinear", crop_pct=1.0, crop_mode="border")
    assert prepare(to_tensor(noise(200, 1)), p).shape == (3, 16, 16)


@pytest.mark.parametrize("name", ["amazon/images/bike/frame_0001.jpg", "dslr/images/mug/frame_0001.jpg"])
def test_real_images(name):
    file = SHARED / "data" / "office31" / name
    if not file.is_file():
        pytest.skip(f"{file} is not here")
    image = Image.open(file).convert("RGB")
    for mode in ("center", "squash", "border"):
        p = Preprocessing((3, 224, 224), **IMAGENET, interpolation="bicubic", crop_pct=0.875, crop_mode=mode)
        differ = (prepare(read_pixels(file), p).int() - timms(image, p).int()).abs()
        assert differ.max() <= 2
        assert (differ > 1).float().mean() < 0.001


def test_normalise_is_timms():
    p = Preprocessing((3, 8, 8), **IMAGENET, interpolation="bilinear", crop_pct=1.0)
    image = noise(8, 8)
    theirs = create_transform(p.input_size, mean=p.mean, std=p.std, crop_pct=1.0, interpolation="bilinear")(image)
    ours = p.normalise(torch.stack([to_tensor(image)] * 2))
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours[1], theirs)


def test_a_record_comes_back():
    p = Preprocessing((3, 20, 30), (0.5, 0.4, 0.3), (0.1, 0.2, 0.3), "bicubic", 0.9, "border")
    assert Preprocessing.from_dict(json.loads(json.dumps(p.to_dict()))) == p
    assert Preprocessing.from_dict(p.to_dict() | {"num_classes": 1000}) == p
    assert hash(p) == hash(Preprocessing.from_dict(p.to_dict()))


def test_shared_records_are_read():
    files = sorted((SHARED / "weights").glob("*.json"))
    if not files:
        pytest.skip(f"no record in {SHARED / 'weights'}")
    for file in files:
        p = Preprocessing.from_dict(json.loads(file.read_text()))
        assert p == Preprocessing((3, 224, 224), **IMAGENET, interpolation="bilinear", crop_pct=0.875)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"interpolation": "bilinaer"}, "unknown interpolation 'bilinaer' (did you mean 'bilinear'?)"),
        ({"crop_mode": "centre"}, "unknown crop_mode 'centre' (did you mean 'center'?)"),
        ({"input_size": [224, 224]}, "Preprocessing: input_size [224, 224]: it must have 3 items"),
        ({"input_size": [1, 8, 8]}, "channels 3"),
        ({"std": [1, 0, 1]}, "must be positive"),
        ({"crop_pct": 0}, "must be positive"),
        ({"crop_pct": 1e-300}, "more than 8192 pixels"),
        ({"input_size": [3, 10**9, 8]}, "more than 8192 pixels"),
        ({"mean": [float("nan"), 0, 0]}, "mean nan: it must be a finite number"),
        ({"std": None}, "std None: it must be a list or tuple"),
        ({"mean": {"a": 1}}, "mean {'a': 1}: it must be"),
    ],
)
def test_bad_records(change, words):
    record = {"input_size": [3, 8, 8], "mean": [0, 0, 0], "std": [1, 1, 1], "interpolation": "box", "crop_pct": 1}
    with pytest.raises(TransferError) as error:
        Preprocessing.from_dict(record | change)
    assert words in str(error.value)
    record.pop("mean")
    with pytest.raises(TransferError, match="lacks mean"):
        Preprocessing.from_dict(record)


def test_padding_is_the_mean_in_border_mode():
    p = Preprocessing((3, 16, 16), **IMAGENET, interpolation="box", crop_pct=1.0, crop_mode="border")
    corner = prepare(to_tensor(Image.new("RGB", (16, 4), "white")), p)[:, 0, 0]
    assert corner.tolist() == [math.floor(255 * m + 0.5) for m in p.mean]


@pytest.mark.parametrize(
    ("side", "crop_pct", "resized", "needed"),
    [((224, 224), 0.875, (256, 256), 384), ((224, 224), 1.0, (224, 224), 336), ((20, 31), 0.9, (22, 34), 51)],
)
@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
def test_what_is_needed_is_half_as_much_again_as_is_resized_to(side, crop_pct, resized, needed, crop_mode):
    p = Preprocessing((3, *side), **IMAGENET, interpolation="box", crop_pct=crop_pct, crop_mode=crop_mode)
    assert p.resized == resized
    assert p.needed == needed


def test_a_scaled_jpeg_looks_the_same(tmp_path):
    """Decoded at half of its size, the view of a smooth picture hardly differs."""
    coarse = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 6, 3), dtype=np.uint8))
    coarse.resize((900, 700), Image.Resampling.BICUBIC).save(tmp_path / "a.jpg", quality=95)
    for mode in ("center", "squash", "border"):
        p = Preprocessing((3, 224, 224), **IMAGENET, interpolation="bilinear", crop_pct=1.0, crop_mode=mode)
        small = read_pixels(tmp_path / "a.jpg", at_least=p.needed)
        assert small.shape == (3, 350, 450)
        differ = prepare(small, p).int() - prepare(read_pixels(tmp_path / "a.jpg"), p).int()
        assert differ.abs().float().mean() < 1
        assert differ.abs().max() <= 12


def test_a_part_of_an_image_is_resized_like_a_whole_one():
    image = to_tensor(noise(50, 40))
    part = image[:, 5:33, 7:40]
    for interpolation in GREY_LEVELS:
        assert torch.equal(resize(part, (20, 30), interpolation), resize(part.clone(), (20, 30), interpolation))


def test_a_larger_size_takes_the_whole_image_and_a_smaller_one_keeps_the_crop():
    own = Preprocessing((3, 224, 224), (0.5,) * 3, (0.5,) * 3, "bilinear", 0.875)
    wide = torch.zeros(3, 100, 200, dtype=torch.uint8)
    wide[:, :, 50:150] = 255
    larger, smaller = own.at_size(256), own.at_size(112)
    assert [prepare(wide, p).shape[1:] for p in (larger, smaller)] == [(256, 256), (112, 112)]
    assert (larger.resized, smaller.resized) == ((256, 256), (128, 128))
    assert replace(own, crop_pct=1.5).at_size(256).crop_pct == 1.5


@pytest.mark.parametrize("crop_pct", [0.875, 1.0, 1.1])
def test_a_border_shows_what_lies_at_the_edge(crop_pct):
    own = Preprocessing((3, 16, 16), **IMAGENET, interpolation="nearest", crop_pct=crop_pct)
    image = torch.zeros(3, 16, 64, dtype=torch.uint8)
    image[:, :, :4] = image[:, :, -4:] = 255  # white at the left and right edge alone
    assert prepare(image, own).max() != 255
    view = prepare(image, own.with_border())
    assert view.shape == (3, 16, 16)
    assert (view[:, 6:10, 0] == 255).all()  # 64 x 16 becomes 16 x 4, in the middle
    assert (view[:, 6:10, -1] == 255).all()
    fill = torch.tensor([round(255 * value) for value in own.mean], dtype=torch.uint8)
    assert (view[:, :6] == fill[:, None, None]).all()
    assert (view[:, 10:] == fill[:, None, None]).all()


def test_levels_are_recorded_only_where_there_are_deep_images():
    plain = Preprocessing((3, 32, 32), **IMAGENET, interpolation="bilinear", crop_pct=1.0)
    assert "levels" not in plain.to_dict()  # so that keys of cached features are what they were
    deep = replace(plain, levels=(("float32", 0.0, 1.0),))
    assert deep.to_dict()["levels"] == [["float32", 0.0, 1.0]]
    assert Preprocessing.from_dict(json.loads(json.dumps(deep.to_dict()))) == deep
    for bad in (("float64", 0.0, 1.0), ("float32", 1.0, 1.0), ("float32", 0.0, math.inf)):
        with pytest.raises(TransferError, match="levels"):
            replace(plain, levels=(bad,))


@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
@pytest.mark.parametrize(("height", "width"), [(96, 200), (200, 96), (128, 128)])
def test_the_view_is_located_where_its_pixels_come_from(crop_mode, height, width):
    """The mean position of what is seen, of an image whose colours are its coordinates."""
    p = Preprocessing((3, 64, 64), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bilinear", 0.8, crop_mode)
    down, across = torch.meshgrid(torch.linspace(0, 255, height), torch.linspace(0, 255, width), indexing="ij")
    seen = prepare(torch.stack([down, across, torch.full_like(down, 255)]).to(torch.uint8), p).float() / 255
    left, top, wide, high = locate_view(height, width, p)
    inside = seen[2] > 0.99  # not the padding
    assert seen[0][inside].mean() == pytest.approx(top + high / 2, abs=0.02)
    assert seen[1][inside].mean() == pytest.approx(left + wide / 2, abs=0.02)
    assert seen[1][inside].max() - seen[1][inside].min() == pytest.approx(min(wide, 1), abs=0.04)
    assert seen[0][inside].max() - seen[0][inside].min() == pytest.approx(min(high, 1), abs=0.04)
