import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from transfer.data.images import depths
from transfer.data.images.depths import measure_depths
from transfer.data.images.levels import KINDS
from transfer.data.shards.reader import list_members
from transfer.disk_cache import DiskCache

RAMP = np.linspace(0, 1, 48).reshape(6, 8)


@pytest.fixture
def files(tmp_path):
    floats = (RAMP * 1.03).astype(np.float32)
    floats[0, :2] = np.nan, np.inf
    made = {
        "a.tif": Image.fromarray(floats),
        "b.png": Image.fromarray((RAMP * 4000).astype(np.uint16)),
        "c.tif": Image.fromarray((RAMP * 100 - 50).astype(np.int32)),
        "d.png": Image.fromarray((RAMP * 255).astype(np.uint8)),
        "e.jpg": Image.new("RGB", (8, 8)),
    }
    for name, image in made.items():
        image.save(tmp_path / name)
    (tmp_path / "f.tif").write_bytes(b"broken")
    return [str(tmp_path / name) for name in (*made, "f.tif")]


def expected():
    step = float(np.float32(RAMP[0, 2] * 1.03)), float(np.float32(1.03))
    return [(KINDS.index("float32"), *step), (KINDS.index("uint16"), 0, 4000), (KINDS.index("int32"), -50, 50)]


def test_kind_and_extremes_of_each_image(files):
    measured = measure_depths(files)
    np.testing.assert_allclose(measured[:3], expected())
    assert (measured[3:, 0] == -1).all()


def test_the_images_of_a_shard(files, shard, tmp_path):
    tar = shard({f"x/{path.rpartition('/')[2]}": Path(path) for path in files[:5]})
    np.testing.assert_allclose(measure_depths(list_members([str(tar)]))[:3], expected())


def test_an_image_is_opened_once(files, tmp_path, monkeypatch):
    digests = np.array([hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in files])
    cache = DiskCache(tmp_path / "cache")
    first = measure_depths(files, digests, cache)
    opened = []
    monkeypatch.setattr(depths, "open_image", lambda *given: opened.append(given))
    np.testing.assert_array_equal(measure_depths(files, digests, cache), first)
    assert not opened
