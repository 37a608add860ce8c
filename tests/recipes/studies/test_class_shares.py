from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from studies.class_shares import CASES, FLAGS, ShareConfig, cases_text, draw_classes, run_cases

from transfer.adaptation.adapt import read_domains
from transfer.config.adapt import AdaptConfig, ShiftConfig, StepsConfig
from transfer.config.shared import BackboneConfig, RunConfig
from transfer.feature_cache import TrunkCache

CLASSES = ("ape", "bee", "cat", "dog", "elk", "fox")
IMAGES = 10  # of each class in each domain


@pytest.fixture
def config(tmp_path):
    """Six classes by colour in two domains."""
    rng = np.random.default_rng(0)
    for domain, light in (("ink", 0), ("oil", 30)):
        for k, name in enumerate(CLASSES):
            (tmp_path / "set" / domain / name).mkdir(parents=True)
            for i in range(IMAGES):
                colour = np.array([40 * k, 240 - 40 * k, 90]) + light
                pixels = np.clip(colour + rng.normal(0, 20, (32, 32, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(tmp_path / "set" / domain / name / f"{i}.png")
    steps = StepsConfig(device="cpu", epochs=1, steps=2, batch_size=4)
    shift = ShiftConfig(str(tmp_path / "set"))
    base = AdaptConfig(shift, backbone=BackboneConfig("glyphnet"), steps=steps, run=RunConfig(seeds=(0, 1)))
    return ShareConfig(base)


@pytest.mark.parametrize(
    ("case", "source", "target"),
    [
        ("equal", [10] * 6, [10] * 6),
        ("equal_fewer", [10] * 4, [10] * 4),
        ("half", [10] * 6, [1] * 3 + [10] * 3),
        ("third", [10] * 6, [1] * 4 + [10] * 2),
        ("third_only", [10] * 6, [10] * 2),
        ("unknown", [10] * 4, [10] * 6),
    ],
)
def test_each_case_has_its_class_shares(config, case, source, target):
    images = read_domains(config.adapt.shift, TrunkCache(config.adapt.cache))
    table = draw_classes(images, "ink", "oil", case, seed=0).table
    counts = [np.bincount(table.object[table.domain == table.domains.index(name)]) for name in ("ink", "oil")]
    assert [sorted(each[each > 0].tolist()) for each in counts] == [source, target]
    if case.startswith("equal"):
        assert counts[0].tolist() == counts[1].tolist()
    again = draw_classes(images, "ink", "oil", case, seed=0).table
    other = draw_classes(images, "ink", "oil", case, seed=1).table
    assert table.paths.tolist() == again.paths.tolist()
    assert case == "equal" or table.paths.tolist() != other.paths.tolist()


def test_every_case_pair_and_seed_is_counted(config):
    rows = run_cases(replace(config, cases=("equal", "third_only")))
    assert [(row["case"], row["pair"], row["seed"]) for row in rows] == [
        (case, pair, seed)
        for pair in ("ink -> oil", "oil -> ink")
        for case in ("equal", "third_only")
        for seed in (0, 1)
    ]
    assert all(isinstance(row[flag], bool) for row in rows for flag in FLAGS)
    assert all(abs(row["error"]) <= 1 for row in rows)
    (row,) = run_cases(replace(config, cases=("half",), auto=True, adapt=replace(config.adapt, run=RunConfig(seed=3))))[
        :1
    ]
    assert row["seed"] == 3
    assert 0 <= row["adapted"] <= 100
    assert set(CASES) >= {"half"}


def test_the_table_counts_flags_and_averages_accuracies():
    row = {"case": "half", "pair": "a -> b", "reliable": True, "strong": True, "partial": False, "open_set": False}
    rows = [row | {"seed": i, "error": e, "source_only": 60.0 + i, "adapted": 70.0} for i, e in enumerate((0.1, -0.3))]
    rows[1] |= {"strong": False}
    last = cases_text(rows).splitlines()[-1].split()
    assert last == ["half", "a", "->", "b", "2", "2", "1", "0", "0", "0.20", "60.5", "±", "0.5", "70.0", "±", "0.0"]
