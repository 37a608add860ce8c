import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transfer.advice.transferability.size import classify_size, measure_set_size
from transfer.config.serialise import to_dict
from transfer.data.duplicates import Inspection, inspect_files
from transfer.data.table import ImageTable, Target


def made(labels: list[int], files: list[str], hashes: list[int]) -> tuple[ImageTable, Inspection]:
    n = len(labels)
    empty = np.full(n, "")
    targets = {"object": Target(np.array(labels), "softmax", ("ant", "bee", "cat", "dog"))}
    table = ImageTable(np.array([f"{i}.png" for i in range(n)]), targets, empty, empty)
    return table, Inspection(np.array(files), np.array(hashes, np.uint64), empty)


def test_counts() -> None:
    far = [0xFF << (8 * i) for i in range(6)]  # 16 bits from each other
    labels = [0] * 7 + [1] * 2 + [2] + [-1]
    files = ["a", "a", "a", "b", "c", "d", "e", "f", "g", "h", "b"]
    hashes = [far[0], far[0], far[0], far[1], far[1] + 1, far[2], far[3], far[4], far[5], 0, far[1]]
    size = measure_set_size(*made(labels, files, hashes))
    assert (size.images, size.labelled, size.classes) == (11, 10, 3)
    assert (size.fewest, size.median, size.most) == (1, 2.0, 7)
    assert size.imbalance == 7.0
    assert size.effective_classes == pytest.approx(math.exp(-sum(s * math.log(s) for s in (0.7, 0.2, 0.1))))
    assert size.copies == 3  # two of a, one of b
    assert size.near_copies == 1  # c is within a bit of b
    assert size.distinct == 7
    assert size.small_classes == ("bee", "cat")


def test_the_median_of_two_classes_is_the_smaller_one() -> None:
    labels = [0] * 1500 + [1] * 6
    size = measure_set_size(*made(labels, [str(i) for i in range(1506)], [0] * 1506))
    assert size.median == 6
    assert classify_size(size.labelled, size.median) == "small"


def test_equal_classes(images: ImageTable) -> None:
    size = measure_set_size(images, inspect_files(images))
    assert (size.images, size.classes, size.fewest, size.most, size.imbalance) == (48, 3, 16, 16, 1.0)
    assert size.effective_classes == pytest.approx(3)
    assert size.small_classes == ()
    assert size.images == size.distinct + size.copies + size.near_copies


def test_no_labels() -> None:
    size = measure_set_size(*made([-1, -1], ["a", "b"], [0, 2**64 - 1]))
    assert (size.labelled, size.classes, size.fewest, size.most, size.effective_classes) == (0, 0, 0, 0, 0.0)


def test_it_is_json() -> None:
    table, inspection = made([0, 0, 1], ["a", "b", "c"], [0, 2**32 - 1, 2**64 - 1])
    table = replace(table, name="three")
    values = json.loads(json.dumps(to_dict(measure_set_size(table, inspection))))
    assert values["images"] == 3
    assert values["small_classes"] == ["ant", "bee"]


@given(st.integers(2, 100_000), st.floats(1, 1000))
def test_more_images_never_make_a_set_small(images: int, each: float) -> None:
    if classify_size(images, each) == "large":
        assert classify_size(images + 1, each + 1) == "large"
