import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transfer.data.images.levels import DEFAULT_LEVELS, KINDS, choose_levels, describe_levels, scale_to_bytes


def depths(kind, *extremes):
    return np.array([(KINDS.index(kind), low, high) for low, high in extremes], dtype=float)


def chosen(kind, *extremes):
    return {name: pair for name, *pair in choose_levels(depths(kind, *extremes))}[kind]


@pytest.mark.parametrize(
    ("extremes", "levels"),
    [
        ([(0, 1.0), (0, 1.03)], [0, 1]),
        ([(0.2, 0.9), (0.1, 0.4)], [0, 1]),
        ([(-0.02, 1.0)], [0, 1]),  # resampling went below black
        ([(0, 200.0), (3, 255.0)], [0, 255]),
        ([(0, 60000.0)], [0, 65535]),
        ([(0, 3.5), (0, 2.0)], [0, 3.5]),  # neither of 1 nor of 255
        ([(0, 0.01)], [0, 0.01]),
        ([(-1, 1.0), (-0.9, 0.8)], [-1, 1]),
        ([(-1.05, 0.4)], [-1, 1]),
        ([(-1000, 3000.0)], [-1000, 3000]),
        ([(0, 0)], [0, 1]),
        ([(-2, -2)], [-2, -1]),
    ],
)
def test_floats_are_read_by_the_usual_scale_that_suits_the_set(extremes, levels):
    assert chosen("float32", *extremes) == levels


@pytest.mark.parametrize(
    ("extremes", "levels"),
    [
        ([(0, 4095)], [0, 65535]),
        ([(0, 255)], [0, 255]),
        ([(0, 256)], [0, 65535]),
        ([(0, 1)], [0, 1]),
        ([(-1024, 3071)], [-1024, 3071]),
        ([(0, 70000)], [0, 2**31 - 1]),
    ],
)
def test_integers_are_read_by_the_least_usual_scale(extremes, levels):
    assert chosen("int32", *extremes) == levels


def test_sixteen_bits_are_read_by_their_type_whatever_they_hold():
    assert chosen("uint16", (0, 4095)) == chosen("uint16", (7, 65535)) == [0, 65535]


def test_a_set_without_deep_images_has_no_levels_and_one_with_some_has_all():
    assert choose_levels(np.array([(-1.0, 0, 0)] * 3)) == ()
    assert choose_levels(np.empty((0, 3))) == ()
    mixed = np.concatenate([depths("float32", (0, 255)), [(-1, 0, 0)]])
    assert choose_levels(mixed) == (*DEFAULT_LEVELS[:2], ("float32", 0, 255))


def test_a_hot_pixel_in_one_image_of_twenty_does_not_darken_the_set():
    many = [(0, 1.0)] * 19 + [(0, 1e6)]
    assert chosen("float32", *many) == [0, 1]
    ((line, odd),) = describe_levels(depths("float32", *many), choose_levels(depths("float32", *many)))
    assert line == "float images from 0 to 1e+06: read as 0 to 1"
    assert odd == ["1 of 20 float images have values far above 1 (up to 1e+06): clipped"]


def test_a_set_that_uses_a_small_part_of_its_range_is_noted():
    twelve_bits = depths("uint16", (3, 4095), (0, 4000))
    ((line, odd),) = describe_levels(twelve_bits, choose_levels(twelve_bits))
    assert line == "16-bit images from 0 to 4095: read as 0 to 65535"
    assert odd == [
        "16-bit images use 6.2 % of the range 0 to 65535, so that the network sees hardly any contrast: scale the "
        "files to the whole range"
    ]
    plain = depths("float32", (0, 1.03))
    assert list(describe_levels(plain, choose_levels(plain))) == [("float images from 0 to 1.03: read as 0 to 1", [])]


@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(0, 1e6)), min_size=1, max_size=30))
def test_levels_are_ordered_and_do_not_depend_on_the_order_of_the_images(pairs):
    extremes = [(low, low + size) for low, size in pairs]
    for kind in KINDS:
        black, white = chosen(kind, *extremes)
        assert -np.inf < black < white < np.inf
        assert [black, white] == chosen(kind, *reversed(extremes))


def test_bytes_are_rounded_and_clipped():
    values = np.array([-5, 0, 0.5, 1, 7, np.nan, np.inf, -np.inf])
    assert scale_to_bytes(values, 0.0, 1.0).tolist() == [0, 0, 128, 255, 255, 0, 255, 0]
    deep = np.arange(0, 65536, 7, dtype=np.uint16)
    expected = np.rint(deep * np.float64(255 / 65535)).astype(np.uint8)
    np.testing.assert_array_equal(scale_to_bytes(deep, 0.0, 65535.0), expected)
