from dataclasses import replace

import numpy as np

from transfer.curation.inspection.measures import ImageMeasures
from transfer.curation.inspection.overview import summarise_table
from transfer.data.left_out import LeftOut


def some_measures(n, **values):
    fields = {name: np.ones(n, np.float32) for name in ImageMeasures.__dataclass_fields__}
    return ImageMeasures(**fields | {name: np.array(of, np.float32) for name, of in values.items()})


def test_counts_sizes_and_formats_are_those_of_the_table(images):
    n = len(images)
    measures = some_measures(n, width=np.arange(n) + 1, height=np.full(n, 2), format=[2] * (n - 1) + [0])
    given = replace(images, split=np.array(["test"] * 8 + [""] * (n - 8)), left_out=(LeftOut("a.txt", "no image"),))
    found = summarise_table(given, measures)
    assert found["images"] == found["labelled"] == n
    assert found["domains"] == ["plain", "striped"]
    assert found["counts"] == {"blue": [8, 8], "green": [8, 8], "red": [8, 8]}
    assert found["splits"] == {"test": 8}
    assert found["formats"] == {"PNG": n - 1, "other": 1}
    assert (found["width"][0], found["width"][-1], found["height"]) == (1, n, [2] * 5)
    assert found["aspect"][-1] == n / 2
    assert found["left_out"] == [{"path": "a.txt", "reason": "no image", "where": ""}]


def test_images_without_a_label_are_counted(images):
    target = replace(images.targets["object"], values=np.where(images.object == 1, -1, images.object))
    found = summarise_table(replace(images, targets=images.targets | {"object": target}), some_measures(len(images)))
    assert found["labelled"] == 32
    assert found["counts"][""] == [8, 8]
    assert found["counts"]["green"] == [0, 0]
