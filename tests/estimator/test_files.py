import hashlib
from pathlib import Path

import numpy as np
import pytest

from transfer.data.images.decode import BadImage
from transfer.data.pixel_files import InputError, image_files
from transfer.errors import TransferError
from transfer.estimator.files import as_value_error, digests


def test_the_same_pixels_have_the_same_digest(pixels):
    seen = []
    for _ in range(2):
        with image_files(pixels[:2]) as paths:
            seen.append(digests(paths).tolist())
            assert seen[-1][0] == hashlib.sha256(Path(paths[0]).read_bytes()).hexdigest()
    assert seen[0] == seen[1]
    with pytest.raises(BadImage, match=r"nowhere\.png"):
        digests(np.array(["nowhere.png"]))


def test_errors_are_value_errors_with_the_same_message():
    with pytest.raises(ValueError, match="no such class") as caught, as_value_error():
        raise TransferError("no such class")
    assert isinstance(caught.value, InputError)
    given = InputError("X has 0 images")
    with pytest.raises(InputError) as caught, as_value_error():
        raise given
    assert caught.value is given
