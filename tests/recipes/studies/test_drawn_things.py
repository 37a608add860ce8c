import numpy as np
import pytest
from PIL import Image
from studies.drawn_things import SIZE, THINGS, draw_thing, draw_things


def test_a_folder_for_each_thing(tmp_path):
    draw_things(tmp_path, per_class=2, things=("bowl", "vase"))
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.jpg")) == [
        "bowl/bowl_00.jpg",
        "bowl/bowl_01.jpg",
        "vase/vase_00.jpg",
        "vase/vase_01.jpg",
    ]
    with Image.open(tmp_path / "vase" / "vase_00.jpg") as picture:
        assert (picture.size, picture.mode) == ((SIZE, SIZE), "RGB")


def test_a_seed_draws_the_same_again(tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        draw_things(tmp_path / name, per_class=1, seed=seed, things=("cup",))
    first, again, other = ((tmp_path / name / "cup" / "cup_00.jpg").read_bytes() for name in "abc")
    assert first == again != other


@pytest.mark.parametrize("thing", THINGS)
def test_a_thing_stands_out_of_its_background(thing):
    """Wall and table are each one colour with noise, so a row without the thing varies by noise alone."""
    pixels = np.asarray(draw_thing(thing, np.random.default_rng(0)), float).mean(2)
    smooth = pixels.reshape(SIZE // 8, 8, SIZE // 8, 8).mean((1, 3))  # noise of 64 pixels averages out
    assert (smooth.max(1) - smooth.min(1)).max() > 20
