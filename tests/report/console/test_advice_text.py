import copy
from pathlib import Path

from transfer.config.commands import AdviseConfig
from transfer.config.serialise import to_dict
from transfer.config.train import BackboneConfig, DataConfig, PolicyConfig, RunConfig, TrainConfig
from transfer.report.console.advice_text import advice_text

CANDIDATE = {
    "policy": "head2toe",
    "accuracy": 0.91,
    "sd": 0.01,
    "measured": True,
    "trained": 0,
    "head": 420,
    "epochs": 0,
    "seconds": 30.0,
    "interval": [0.89, 0.93],
}
LEARNT = CANDIDATE | {"policy": "lp_ft:2", "measured": False, "trained": 12345, "accuracy": 0.9, "seconds": 600.0}
LINE = {
    "name": "glyphnet",
    "logme": 0.5,
    "linear_probe": 0.9,
    "interval": [0.89, 0.93],
    "loss": 0.25,
    "behind": 0.0,
    "error": 0.0,
}
RESULT = {
    "command": "advise",
    "config": to_dict(AdviseConfig()),
    "advice": {
        "size": "small",
        "kind": "different",
        "case": "small and different",
        "best": CANDIDATE,
        "runner_up": LEARNT,
        "settings": {"policy": "lp_ft:2", "batch_size": 32},
        "ranked": [CANDIDATE, LEARNT],
        "reasons": ["small: 30 images", "different from all"],
        "how": {
            "frozen": ["stem", "layer1"],
            "learning": ["layer2"],
            "dropped": ["layer3"],
            "features": ["layer2"],
            "heads": {"kind": "dual", "hidden": [64]},
            "lr": 0.003,
            "backbone_lr": 0.0003,
            "augment": "none",
            "epochs": 6,
        },
    },
    "similarity": {"distance": {"layer1": 0.1234}, "informed": None},
    "probes": {"head2toe": {"accuracy": 0.925}, "linear_probe": {"accuracy": 0.8}, "truncate:1": {"accuracy": 0.7}},
    "transferability": {"logme": 0.5, "hscore": 0.25, "leep": None, "nce": None},
    "neighbours": {"stem": 0.5, "layer1": 0.75},
    "backbones": [LINE],
    "backbone": {"name": "glyphnet"},
    "others": [],
    "recommended": to_dict(TrainConfig(DataConfig("my flowers"), policy=PolicyConfig(policy="lp_ft:2"))),
    "noise": {"suspects": []},
    "notes": ["one domain only"],
    "run": None,
}


def test_it_says_what_to_do_and_why():
    said = advice_text(RESULT)
    assert said.startswith("small: 30 images\ndifferent from all\n")
    assert "--policy lp_ft:2 --batch-size 32" in said
    assert "labels to check" not in said
    assert "expected object accuracy 0.910 (0.890 to 0.930); second choice: lp_ft:2, 0.900" in said
    row = next(line for line in said.splitlines() if line.startswith("lp_ft:2"))
    assert row.split() == ["lp_ft:2", "0.900", "0.890", "to", "0.930", "no", "12,345", "420", "10", "min"]
    assert next(line for line in said.splitlines() if line.startswith("head2toe")).split()[5:7] == ["0.925", "0"]
    assert "(LEEP, NCE): LogME 0.50, H-score 0.25, LEEP not measurable, NCE not measurable\n" in said
    assert "\nthe set is small and different; advised: --policy" in said
    assert "note: one domain only" in said
    assert (
        "dual MLP heads (64) on features of layer2; trained: layer2, rate 0.0003 at the top stage, 0.003 for the "
        "heads; frozen: stem, layer1; dropped: layer3; augmentation: none"
    ) in said
    stages = [line.split() for line in said.splitlines() if line.startswith(("stem", "layer1"))]
    assert stages == [["stem", "-", "0.500", "0.700"], ["layer1", "0.12", "0.750", "0.800"]]
    assert "points behind" not in said


def test_backbones_suspects_and_the_run_are_there_if_there_are_any():
    result = copy.deepcopy(RESULT)
    result["backbones"].append(LINE | {"name": "resnet18", "behind": 0.0123, "error": 0.02})
    result["noise"]["suspects"] = [{"path": f"{i}.png", "label": "cat", "called": "dog"} for i in range(7)]
    result["run"] = {"test": {"object": {"accuracy": 0.8765, "n": 40}}}
    said = advice_text(result)
    rows = [line.split() for line in said.splitlines() if line.startswith(("glyphnet", "resnet18"))]
    assert rows == [
        ["glyphnet", "0.900", "0.890", "to", "0.930", "-", "0.250", "0.500"],
        ["resnet18", "0.900", "0.890", "to", "0.930", "1.2", "±", "2.0", "0.250", "0.500"],
    ]
    assert "small and different; advised: --backbone glyphnet --policy lp_ft:2 --batch-size 32" in said
    assert "0.png: cat, more likely dog" in said
    assert "and 2 more (advice.json has all of them with --out DIR)" in said
    result["config"] = to_dict(AdviseConfig(TrainConfig(run=RunConfig(out=Path("here")))))
    assert f"and 2 more in {Path('here', 'advice.json')}" in advice_text(result)
    assert "trained as advised: object accuracy 0.876 on 40 test images" in said or "accuracy 0.877 on 40" in said


def test_a_run_without_labelled_test_images_is_told_without_a_figure():
    unlabelled = advice_text(RESULT | {"run": {"test": {}}})
    assert "trained as advised; no labelled test images" in unlabelled


def test_a_better_backbone_comes_first_and_is_what_is_carried_out():
    row = {"name": "resnet18", "weights": "store", "accuracy": 0.95, "against": 0.7, "images": 300, "error": 0.04}
    better = TrainConfig(DataConfig("flowers"), BackboneConfig("resnet18"), policy=PolicyConfig(policy="auto"))
    result = copy.deepcopy(RESULT) | {"others": [row | {"better": True}], "as_requested": RESULT["recommended"]}
    result |= {"recommended": to_dict(better), "noise": {"suspects": [{"path": "0", "label": "a", "called": "b"}]}}
    said = advice_text(result)
    assert said.startswith(
        "another backbone on this machine is better: a linear probe on resnet18 (store) has 95.0% of 300 images "
        "correct, glyphnet at its best 70.0% (the difference is known to 4.0 points, 95 %)\n\nsmall: 30 images"
    )
    assert "labels to check: not listed, because resnet18 predicts them better" in said
    assert "more likely" not in said
    assert "with glyphnet: transfer train 'my flowers'" in said
    assert "another backbone" not in advice_text(RESULT | {"others": [row | {"better": False}]})
