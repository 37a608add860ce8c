import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from studies.class_variance import between_class_share, between_class_shares

from transfer.data.table import ImageTable, Target


@given(st.integers(0, 1000), st.integers(1, 5), st.floats(0, 5))
def test_against_plain_loops(seed: int, classes: int, apart: float) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(-1, classes, 30)
    labels[0] = 0
    x = rng.normal(size=(30, 4)) + apart * labels[:, None]
    rows = [i for i in range(30) if labels[i] >= 0]
    middle = [sum(x[i, k] for i in rows) / len(rows) for k in range(4)]
    total = sum((x[i, k] - middle[k]) ** 2 for i in rows for k in range(4))
    within = 0.0
    for c in set(labels[rows]):
        mine = [i for i in rows if labels[i] == c]
        for k in range(4):
            mean = sum(x[i, k] for i in mine) / len(mine)
            within += sum((x[i, k] - mean) ** 2 for i in mine)
    expected = 1 - within / total if len(rows) > 1 else 0.0
    assert between_class_share(x, labels) == pytest.approx(expected, abs=1e-9)


def test_the_ends() -> None:
    labels = np.array([0, 0, 1, 1, 2, 2])
    assert between_class_share(np.eye(3)[labels], labels) == pytest.approx(1.0)
    assert between_class_share(np.array([[1.0], [2.0]] * 3), labels) == pytest.approx(0.0)
    assert between_class_share(np.ones((6, 2), np.float32), labels) == 0.0


def test_each_question_has_its_share(images: ImageTable) -> None:
    ages = Target(np.linspace(0, 1, len(images)), "regression")
    table = ImageTable(images.paths, images.targets | {"age": ages}, images.split, images.group)
    found = between_class_shares(table, np.eye(3)[images.object])
    assert set(found) == {"object", "domain"}
    assert found["object"]["share"] == pytest.approx(1.0)
    assert found["domain"]["share"] == pytest.approx(0.0)
