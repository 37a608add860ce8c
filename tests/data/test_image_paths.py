import io
import os
from pathlib import Path

import pytest

from transfer.data.image_paths import find_images
from transfer.errors import TransferError


def test_image_files_takes_files_folders_globs_and_a_list(folder):
    one = folder / "plain" / "red" / "0.png"
    assert find_images([str(one)]) == [str(one)]
    assert len(find_images([str(folder)])) == 48
    assert find_images([str(folder / "plain" / "*" / "0.png")]) == [
        str(folder / "plain" / c / "0.png") for c in ("blue", "green", "red")
    ]
    assert find_images(["-"], io.StringIO(f"{one}\n\n{folder / 'striped'}\n")) == [
        str(one),
        *find_images([str(folder / "striped")]),
    ]


@pytest.mark.parametrize(("names", "says"), [(["nowhere"], "no image at nowhere"), ([], "no image given")])
def test_nothing_to_predict(names, says):
    with pytest.raises(TransferError, match=says):
        find_images(names)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes and links here")
def test_links_in_circles_pipes_and_depth_are_no_trouble(tmp_path):
    deep = tmp_path / "set" / Path(*"d" * 600)
    deep.mkdir(parents=True)
    (deep / "x.png").touch()
    for name in ("a", "b"):
        (tmp_path / "set" / name).symlink_to(".")
    os.mkfifo(tmp_path / "set" / "pipe.png")
    assert find_images([str(tmp_path / "set")]) == [str(deep / "x.png")]
    (tmp_path / "set" / "c").mkdir()
    (tmp_path / "set" / "c" / "y.png").touch()
    assert str(tmp_path / "set" / "c" / "y.png") in find_images([str(tmp_path / "s*" / "c" / "**" / "*.png")])
