import json

import pytest
import yaml
from huggingface_hub import metadata_load

from transfer.runs.folder import RunFolder
from transfer.runs.model_card import MARKER, escape_markdown, render_model_card
from transfer.training.train import train

HOSTILE = ["<script>alert(1)</script>", "| a | b |", "[x](http://evil)", "---\nlicense: mit", "*b*`c`\u202e", '"q": #']


def result(names, **more):
    per_class = {name: {"recall": i / len(names), "precision": 1.0, "n": 9 + i} for i, name in enumerate(names)}
    report = {"accuracy": 0.5, "macro_f1": 0.25, "n": 90, "interval": {"accuracy": [0.4, 0.6]}, "per_class": per_class}
    return {
        "command": "train",
        "config": {"data": {"data": "/home/somebody/secret place/my: pets"}, "run": {"seed": 3}},
        "versions": {"transfer": "0.1.0"},
        "backbone": {"name": "test_resnet", "weights": "file /home/somebody/w.safetensors"},
        "policy": {"name": "full", "trained_parameters": 1234, "frozen_parameters": 5, "frozen_unchanged": True},
        "images": {"train": 40, "val": 10, "test": 90, "rarest": {names[0]: 2}, "commonest": {}, "imbalance": 2.0},
        "test": {"object": report},
        "per_domain": {},
        "notes": ["2 bad images skipped: bad image /home/somebody/x.png: broken"],
    } | more


def header(text, tmp_path):
    (tmp_path / "README.md").write_text(text, encoding="utf-8")
    return metadata_load(tmp_path / "README.md")


def test_the_card_of_a_run_says_what_its_result_says(config, tmp_path):
    run = train(config(out=tmp_path / "run", test=0.25, epochs=1))
    text = (tmp_path / "run" / "README.md").read_text(encoding="utf-8")
    report = run.result["test"]["object"]
    low, high = report["interval"]["accuracy"]
    assert f"| object | {report['accuracy']:.3f} [{low:.3f}, {high:.3f}] |" in text
    assert "blue, green, red" in text
    assert "plain, striped" in text
    assert "12 test images the mean confidence" in text
    assert str(tmp_path) not in text
    told = metadata_load(tmp_path / "run" / "README.md")
    assert told["library_name"] == "transfer"
    assert "license" not in told
    (metric, *_) = told["model-index"][0]["results"][0]["metrics"]
    assert metric["value"] == pytest.approx(report["accuracy"], abs=1e-4)
    train(config(out=tmp_path / "run", epochs=1, overwrite=True))  # the card is a part of the run that it replaces


def test_hostile_names_are_only_names(tmp_path):
    names = [*HOSTILE, "plain"]
    config = {"data": {"data": HOSTILE[4]}, "run": {"seed": 0}}
    text = render_model_card(result(names, config=config))
    body = text.split("---\n", 2)[2]
    assert "<script" not in body
    assert "](http" not in body
    assert "\u202e" not in text
    assert "\n---" not in body
    assert all(line.count("|") - line.count(r"\|") in (0, 5) for line in body.splitlines() if "|---" not in line)
    told = header(text, tmp_path)
    assert "license" not in told
    assert told["model-index"][0]["results"][0]["dataset"]["name"] == "*b*`c`"
    assert yaml.safe_load(text.split("---\n")[1]) == told


def test_it_names_no_place_on_the_machine():
    text = render_model_card(result(["a", "b", "c", "d", "e"]))
    assert "somebody" not in text
    assert "secret" not in text
    assert "my: pets" in text
    assert "2 bad images skipped" in text


def test_limits_are_in_plain_words():
    rows = [{"object": "a", "object_predicted": p, "object_probability": "0.9"} for p in "aab"] + [{"object": ""}]
    text = render_model_card(result([*"abcdef"]), rows)
    assert "on 3 test images the mean confidence is 90% and the accuracy 67%" in text
    assert "Fewest training images: a, 2." in text
    assert "Fewer than 10 test images, so that their recall is uncertain: a." in text
    assert "Lowest recall: b 17%, c 33%, d 50%." in text


def test_without_labels_nothing_is_measured(tmp_path):
    text = render_model_card(result(["a"], test={}))
    assert "Not measured" in text
    assert "model-index" not in header(text, tmp_path)


def test_scores_of_labels_are_not_called_accuracy():
    tags = {"map": 0.75, "macro_f1": 0.5, "n": 40, "per_label": {}}
    both = result(["a"])["test"] | {"tags": tags}
    text = render_model_card(result(["a"], test=both))
    assert "| head | score | macro-F1 | images |" in text
    assert "| object | accuracy 0.500 [0.400, 0.600] | 0.250 | 90 |" in text
    assert "| tags | mAP 0.750 | 0.500 | 40 |" in text
    assert "| head | accuracy | macro-F1 | images |" in render_model_card(result(["a"]))


def test_several_seeds_and_adaptation():
    report = {"accuracy": 0.75, "macro_f1": 0.5, "n": 4, "per_class": {}}
    adapted = result(
        ["a"],
        command="adapt",
        config={"shift": {"data": "office31", "source": ["amazon"], "target": "dslr"}, "run": {"seed": 0}},
        images={"source": 5, "target": 4, "target_labelled": 0},
        target={"object": report},
        source_only={"object": report | {"accuracy": 0.5}},
        sd={part: {"object": {"accuracy": 0.125, "macro_f1": 0.25}} for part in ("target", "source_only")},
        selection={"rule": "im", "chosen": ["mcc", "mcc"]},
        seeds=[{"seed": 4}, {"seed": 5}],
    )
    text = render_model_card(adapted)
    assert "| object | 0.750 ± 0.125 | 0.500 ± 0.250 | 4 |" in text
    assert "| object, source only | 0.500 ± 0.125 |" in text
    assert "Labelled: amazon; unlabelled: dslr." in text
    assert "Adapted with mcc, chosen by the rule im without target labels. Seeds: 4, 5;" in text


def test_the_readme_of_others_is_not_replaced(tmp_path):
    (tmp_path / "README.md").write_text("# My project")
    with pytest.raises(Exception, match="holds other files"):
        RunFolder(tmp_path, {}, overwrite=True)
    assert MARKER in render_model_card(result(["a"]))


def test_words_are_one_line():
    assert escape_markdown("a\n\tb") == "a b"
    assert escape_markdown("x" * 100, 10) == "x" * 9 + "…"
    assert json.dumps(escape_markdown("-")) == '"\\\\-"'
