import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from course import baseline
from course.baseline import ROWS, average_seeds, compare_adam_with_sgd, compare_by_seed, course_text
from course.config import CourseConfig
from scipy.stats import ttest_rel

from transfer.config.train import BackboneConfig, DataConfig
from transfer.data.table import ImageTable

REPORTED = {  # hidden, rate, optimizer, epochs, then domain + object of each report
    1: ((10,), 1e-3, "sgd", 20, (0.661, 0.048)),
    2: ((32, 10), 1e-3, "sgd", 35, (0.661, 0.032)),
    3: ((64, 32, 10), 1e-3, "sgd", 50, (0.824, 0.243)),
    4: ((64, 32, 10), 1e-4, "sgd", 50, (0.867, 0.197)),
    5: ((64, 32, 10), 1e-4, "adam", 50, (0.878, 0.246), (0.867, 0.243)),
}


def test_the_rows_are_those_reported() -> None:
    for number, (hidden, lr, optimizer, epochs, *reported) in REPORTED.items():
        row = ROWS[number]
        assert (row.config.network.hidden, row.config.lr, row.config.optimizer, row.config.epochs) == (
            *(hidden, lr, optimizer, epochs),
        )
        assert row.reported == tuple(reported)
        network = row.config.network
        assert (network.activation, network.initialisation, network.deviation) == ("relu", "deviation", 0.03)
        assert (row.config.batch_size, row.config.side, row.config.inputs) == (10, 100, "raw")
    assert ROWS[5].name("raw") == "[64,32,10] adam 0.0001 raw"
    assert ROWS[6].name("raw") == "cnn [16,32,64] adam 0.001 raw"
    assert not ROWS[6].reported


def make_results(accuracies: list[float], dead: float = 0.1, loss: float = 2.0) -> list[dict[str, Any]]:
    ended = {"layers": {"end": [{"dead": 0.9}, {"dead": dead}]}, "epochs": [{"loss": loss}], "seconds": {"epoch": 2.0}}
    return [ended | {"test": {"domain": {"accuracy": 0.8}, "object": {"accuracy": a}}} for a in accuracies]


def test_adam_minus_sgd_is_paired_by_seed() -> None:
    adam, sgd = [0.25, 0.22, 0.27], [0.20, 0.21, 0.19]
    runs = [
        {"row": 5, "inputs": "raw", "seeds": make_results(adam)},
        {"row": 4, "inputs": "raw", "seeds": make_results(sgd)},
    ]
    found = compare_adam_with_sgd(runs)
    wanted = ttest_rel(adam, sgd).confidence_interval(0.95)
    assert found["raw"]["object"]["difference"] == pytest.approx(np.mean(adam) - np.mean(sgd), abs=1e-6)
    assert found["raw"]["object"]["interval"] == pytest.approx([wanted.low, wanted.high], abs=1e-6)
    assert found["raw"]["domain"] == {"difference": 0.0, "interval": [0.0, 0.0]}
    assert compare_adam_with_sgd(runs[:1]) == {}
    assert compare_adam_with_sgd([runs[0], runs[1] | {"inputs": "unit"}]) == {}


def test_one_seed_has_no_interval() -> None:
    assert compare_by_seed([0.3], [0.2]) == {"difference": 0.1, "interval": None}


def test_mean_and_sample_deviation_over_seeds() -> None:
    found = average_seeds(make_results([0.2, 0.3, 0.7]))
    assert found["test"]["object"]["accuracy"] == pytest.approx(0.4)
    assert found["sd"]["test"]["object"]["accuracy"] == pytest.approx(np.std([0.2, 0.3, 0.7], ddof=1))
    assert average_seeds(make_results([0.2])) == {"test": make_results([0.2])[0]["test"]}


def test_the_table_puts_reported_beside_measured() -> None:
    adam = {
        "row": 5,
        "name": "adam",
        "inputs": "raw",
        "reported": ROWS[5].reported,
        "seeds": make_results([0.25, 0.35]),
    }
    cnn = {"row": 6, "name": "cnn", "inputs": "raw", "reported": (), "seeds": make_results([0.5, 0.5])}
    probe = {"test": {"domain": {"accuracy": 0.99}, "object": {"accuracy": 0.9}}}
    found = {
        "config": {"backbone": {"backbone": "net"}},
        "runs": [adam, cnn],
        "transfer": {"linear_probe": probe},
        "paired": {"raw": {"object": {"difference": 0.05, "interval": [0.01, 0.09]}}},
    }
    head, first, second, third, _, difference = course_text(found).splitlines()
    assert head.split("  ")[0] == "network"
    assert " ".join(first.split()) == "adam 0.878 or 0.867 0.800 ± 0.000 0.246 or 0.243 0.300 ± 0.071 2.00"
    assert " ".join(second.split()) == "cnn - 0.800 ± 0.000 - 0.500 ± 0.000 2.00"
    assert " ".join(third.split()) == "net linear_probe - 0.990 - 0.900 -"
    assert difference == "Adam - SGD, raw pixels, paired by seed: object +0.050 [+0.010, +0.090]"


def test_collapses_are_counted_and_the_other_seeds_averaged() -> None:
    fallen = [*make_results([0.04], dead=1.0), *make_results([0.03], loss=float("nan"))]
    mixed = {"row": 1, "name": "some", "inputs": "raw", "reported": (), "seeds": [*make_results([0.2, 0.3]), *fallen]}
    runs = [
        mixed,
        mixed | {"name": "all", "seeds": fallen},
        mixed | {"name": "none", "seeds": make_results([0.2, 0.3])},
    ]
    text = course_text({"config": {"backbone": {"backbone": ""}}, "runs": runs, "transfer": {}, "paired": {}})
    assert text.splitlines()[-2:] == [
        "some: 2 of 4 collapsed; the others: domain 0.800 ± 0.000, object 0.250 ± 0.071",
        "all: 2 of 2 collapsed",
    ]


def test_a_small_run_from_folder_to_table(images: ImageTable, tmp_path: Path) -> None:
    data = DataConfig(str(Path(str(images.paths[0])).parents[2]), test=0.25, val=0.2)
    config = CourseConfig(
        data,
        BackboneConfig("glyphnet"),
        rows=(4, 5, 6),
        inputs=("standardised",),
        seeds=(0, 1),
        epochs=1,
        device="cpu",
        out=tmp_path / "run",
    )
    found = baseline.run_course(config)
    assert [(run["row"], len(run["seeds"])) for run in found["runs"]] == [(4, 2), (5, 2), (6, 2)]
    assert all(len(seed["epochs"]) == 1 for run in found["runs"] for seed in run["seeds"])
    assert set(found["paired"]["standardised"]) == {"domain", "object"}
    probe = found["transfer"]["linear_probe"]
    assert probe["test"]["object"]["n"] == found["runs"][0]["seeds"][0]["test"]["object"]["n"] == 12
    saved = json.loads((tmp_path / "run" / "result.json").read_text())
    assert saved["runs"][0]["seeds"][0]["test"]["object"]["accuracy"] >= 0
    assert "glyphnet linear_probe" in course_text(found)
