import json
from pathlib import Path

import pytest
from course import review_study
from course.config import NetworkConfig, QuestionsConfig
from course.networks import ACTIVATIONS
from course.review_study import BASES, QUESTIONS, make_config, review_text

from transfer.config.train import DataConfig
from transfer.data.table import ImageTable


def test_every_choice_has_a_question() -> None:
    assert set(QUESTIONS["activation"]) == set(ACTIVATIONS)
    assert set(QUESTIONS["initialisation"]) == {"too_small", "too_large", "xavier", "he"}
    assert set(QUESTIONS["inputs"]) == {"raw", "unit", "standardised"}


def test_a_setting_changes_one_thing_and_the_base_is_in_each_question() -> None:
    config = QuestionsConfig()
    base = make_config(config, "mlp", {})
    assert base.network == NetworkConfig("mlp", (64,) * 5, "relu", "he")
    assert base.inputs == "standardised"
    for question in ("activation", "initialisation", "inputs"):
        made = [make_config(config, "mlp", change) for change in QUESTIONS[question].values()]
        assert made.count(base) == 1
        assert len(set(made)) == len(made)
    assert make_config(config, "cnn", {"inputs": "raw"}).inputs == "raw"
    assert make_config(config, "cnn", {"batch_norm": True}).network.batch_norm


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    questions = {
        "activation": {"relu": {"activation": "relu"}, "sigmoid": {"activation": "sigmoid"}},
        "initialisation": {"he": {"initialisation": "he"}, "too_small": {"initialisation": "too_small"}},
    }
    monkeypatch.setattr(review_study, "QUESTIONS", questions)


@pytest.mark.usefixtures("few")
def test_a_small_run_from_folder_to_table_and_picture(
    images: ImageTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = DataConfig(str(Path(str(images.paths[0])).parents[2]), test=0.25)
    trained = []
    train = review_study.train_from_scratch
    monkeypatch.setattr(
        review_study,
        "train_from_scratch",
        lambda config, *args, **more: trained.append(config) or train(config, *args, **more),
    )
    config = QuestionsConfig(data, side=8, epochs=6, seeds=(0, 1), device="cpu", out=tmp_path / "run")
    found = review_study.run_review_study(config)
    assert len(trained) == 2 * 2 * 3  # networks, seeds, settings with the base once
    saved = json.loads((tmp_path / "run" / "result.json").read_text())
    assert list(saved["runs"]) == ["mlp", "cnn"]
    assert (tmp_path / "run" / "layers.png").stat().st_size > 10_000
    small = found["runs"]["mlp"]["initialisation"]["too_small"][0]["layers"]["start"]
    assert small[-2]["activation"] < 1e-3 * small[0]["activation"]
    lines = review_text(found).splitlines()
    assert len([line for line in lines if line.startswith(("activation: ", "initialisation: "))]) == 8
    assert any(line.startswith("mlp, initialisation too_small: ") for line in lines)
    assert "±" in lines[1]


def test_the_table_s_ends_are_the_first_and_last_hidden_layer() -> None:
    layers = [
        {"layer": n, "activation": a, "gradient": a / 10, "dead": d}
        for n, a, d in (("layer1", 1, 0.25), ("layer2", 20, 0.5), ("output", 300, 0.0))
    ]
    run = {"layers": {"start": layers, "end": layers}, "test": {"object": {"accuracy": 0.5}}, "monitor": ["dead: a"]}
    text = review_text({"runs": {"mlp": {"inputs": {"raw": [run]}}}})
    row = " ".join(text.splitlines()[1].split())
    assert row == "inputs: raw 1.0e+00 .. 2.0e+01 1.0e-01 .. 2.0e+00 50% 0.500 -"
    assert text.splitlines()[-1] == "mlp, inputs raw: dead: a"


def test_bases_are_deep_enough_to_show_it() -> None:
    assert all(len(base.hidden) == 5 and base.initialisation == "he" for base in BASES.values())
