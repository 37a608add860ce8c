import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from transfer.adaptation import feature_map
from transfer.adaptation.selection.evidence import CandidateEvidence
from transfer.errors import TransferError


def evidence_of(source=30, target=20, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    labels, said = rng.integers(0, classes, source), rng.integers(0, classes, target)
    centres = 8 * rng.normal(size=(classes, 5))
    features = [(centres[k] + rng.normal(size=(len(k), 5))).astype(np.float32) for k in (labels, said)]
    none = np.empty((0, 5), np.float32), np.empty((0, classes), np.float32), np.empty(0, np.int64)
    return CandidateEvidence(features[0], labels, *none, features[1], np.eye(classes, dtype=np.float32)[said])


NAMES = {"classes": ("back_pack", "bike", "mug"), "domains": ("amazon", "webcam")}


def test_the_map_is_a_png_with_a_row_per_state(tmp_path: Path) -> None:
    sizes = []
    for count in (1, 2):
        states = {f"state {i}": evidence_of(seed=i) for i in range(count)}
        feature_map.feature_map(tmp_path / "map.png", states, **NAMES)
        with Image.open(tmp_path / "map.png") as image:
            sizes.append(image.size)
            colours = {colour for _, colour in image.convert("RGB").getcolors(1 << 24)}
        assert {(0, 0x72, 0xB2), (0xE6, 0x9F, 0)} <= colours
    assert sizes[0][0] == sizes[1][0]
    assert sizes[0][1] < sizes[1][1]
    assert [path.name for path in tmp_path.iterdir()] == ["map.png"]


def test_the_same_seed_draws_the_same_map(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        feature_map.feature_map(tmp_path / name, {"before": evidence_of()}, **NAMES, seed=seed)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() != (tmp_path / "c").read_bytes()


@pytest.mark.parametrize(("source", "target", "classes"), [(1, 1, 2), (2, 1, 2), (30, 1, 3), (60, 60, 50)])
def test_small_data_sets_and_many_classes(tmp_path: Path, source: int, target: int, classes: int) -> None:
    names = tuple(f"thing {k}" for k in range(classes))
    states = {"after": evidence_of(source, target, classes)}
    feature_map.feature_map(tmp_path / "map.png", states, classes=names, domains=("a, b", "c"))
    assert (tmp_path / "map.png").stat().st_size > 1000


def test_features_that_diverged_are_refused(tmp_path: Path) -> None:
    some = evidence_of()
    some.target_features[0, 0] = np.inf
    with pytest.raises(TransferError, match=r"NaN or infinite \(after\)"):
        feature_map.feature_map(tmp_path / "map.png", {"before": evidence_of(), "after": some}, **NAMES)
    assert not list(tmp_path.iterdir())


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(0, 3), st.integers(2, 2000))
def test_rows_drawn(source: int, target: int, seed: int, most: int) -> None:
    drawn = feature_map.sample_map_rows(source, target, seed, most)
    assert sum(map(len, drawn)) == min(source + target, most)
    for rows, there in zip(drawn, (source, target), strict=True):
        assert len(rows) >= min(there, most // 2)
        assert (np.diff(rows) > 0).all()
        assert rows.size == 0 or (rows[0] >= 0 and rows[-1] < there)


@given(arrays(float, st.tuples(st.integers(1, 12), st.just(2)), elements=st.floats(0, 1)), st.floats(0.01, 0.5))
def test_labels_do_not_overlap_and_only_rise(places: np.ndarray, width: float) -> None:
    sizes = np.tile([width, 0.1], (len(places), 1))
    out = feature_map.separate_labels(places, sizes)
    assert (out[:, 0] == places[:, 0]).all()
    assert (out[:, 1] >= places[:, 1]).all()
    for i in range(len(out)):
        for j in range(i):
            assert abs(out[i, 0] - out[j, 0]) >= width - 1e-9 or abs(out[i, 1] - out[j, 1]) >= 0.1 - 1e-9


def test_labels_that_do_not_overlap_stay() -> None:
    places = np.array([[0.0, 0.0], [0.5, 0.01], [0.0, 0.2]])
    assert (feature_map.separate_labels(places, np.tile([0.4, 0.1], (3, 1))) == places).all()


@pytest.mark.parametrize("classes", [1, 2, 31])
def test_every_class_has_a_colour_of_its_own(classes: int) -> None:
    colours = feature_map.class_colours(classes)
    assert colours.shape == (classes, 3)
    assert len(np.unique(colours, axis=0)) == classes
    assert ((colours >= 0) & (colours <= 1)).all()


def test_drawing_is_imported_only_to_draw() -> None:
    code = "import sys, transfer.adaptation.feature_map; print({'matplotlib', 'sklearn', 'torch'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"


def test_names_are_drawn_without_formulas(tmp_path: Path) -> None:
    names = ("$\\frac{$", "\x1b[31m\n", "\udcff")
    feature_map.feature_map(tmp_path / "map.png", {"after": evidence_of()}, classes=names, domains=("$x^$", "a\u202eb"))
    assert (tmp_path / "map.png").stat().st_size > 1000
