from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from transfer.backbones.catalogue import CatalogueRow
from transfer.backbones.shortlist import ShortlistRow
from transfer.disk_cache import CacheEntry
from transfer.report import text as tables
from transfer.runs.seeds import merge_seeds


def report(accuracy: float) -> dict[str, Any]:
    return {
        "accuracy": accuracy,
        "balanced_accuracy": accuracy - 0.1,
        "macro_f1": accuracy - 0.2,
        "calibration_error": 0.025,
        "n": 40,
        "interval": {"accuracy": [accuracy - 0.05, accuracy + 0.05]},
    }


def result(object_accuracy: float = 0.9, **more: Any) -> dict[str, Any]:
    return {
        "test": {"object": report(object_accuracy), "domain": report(0.95)},
        "per_domain": {
            "amazon": {"object": {"accuracy": 0.8, "n": 25}, "domain": {"accuracy": 1.0, "n": 25}},
            "dslr": {"object": {"n": 0}, "domain": {"accuracy": 0.5, "n": 15}},
        },
        "policy": {"trained_parameters": 12345, "frozen_parameters": 6789000, "frozen_unchanged": True, "moved": []},
        "seconds": {"total": 12.34, "trunk": 5.67, "train": 6.67},
        "notes": ["one domain only: no domain head"],
        "stopped": "",
        **more,
    }


def test_table_first_column_left_the_others_right() -> None:
    text = tables.text_table(["name", "n"], [["a", "1"], ["longer name", "1,000"]])
    assert text.splitlines() == ["name             n", "a                1", "longer name  1,000"]


def test_table_without_rows() -> None:
    assert tables.text_table(["name", "n"], []) == "name  n"


def test_table_has_no_trailing_spaces() -> None:
    assert all(line == line.rstrip() for line in tables.text_table(["a", "b"], [["x", ""], ["long", "y"]]).splitlines())


@pytest.mark.parametrize("rows", [[["a"]], [["a", "b", "c"]]])
def test_table_refuses_ragged_rows(rows: list[list[str]]) -> None:
    with pytest.raises((ValueError, IndexError)):
        tables.text_table(["name", "n"], rows)


def test_figure_of_one_seed_has_its_interval() -> None:
    assert tables.score_text(result(), "object") == "0.900 [0.850, 0.950]"
    assert tables.score_text(result(), "object", "macro_f1") == "0.700"


def test_figure_of_several_seeds_has_its_standard_deviation() -> None:
    merged = merge_seeds((0, 1, 2), [result(a) for a in (0.85, 0.9, 0.95)])
    assert tables.score_text(merged, "object") == "0.900 ± 0.050"
    assert tables.score_text(merged, "domain") == "0.950 ± 0.000"


@pytest.mark.parametrize("given", [{}, {"test": {}}, {"test": {"object": {"n": 0}}}])
def test_figure_that_is_missing(given: dict[str, Any]) -> None:
    assert tables.score_text(given, "object") == "-"


def test_one_run() -> None:
    text = tables.run_text(result())
    lines = [line.split() for line in text.splitlines() if line]
    assert lines[0] == ["test", "accuracy", "balanced", "macro-F1", "calibration", "error", "n"]
    assert lines[1] == ["object", "0.900", "[0.850,", "0.950]", "0.800", "0.700", "0.025", "40"]
    assert lines[3] == ["domain", "object", "domain", "n"]
    assert lines[4] == ["amazon", "0.800", "1.000", "25"]
    assert lines[5][:3] == ["dslr", "-", "0.500"]
    assert "12,345 parameters trained, 6,789,000 frozen (bit-identical)" in text
    assert "12.3 s, of which 5.7 s in the frozen trunk" in text
    assert text.endswith("note: one domain only: no domain head")


def test_one_run_of_several_seeds() -> None:
    merged = merge_seeds((0, 1), [result(0.8), result(0.9)])
    text = tables.run_text(merged)
    assert "0.850 ± 0.071" in text
    assert "24.7 s" in text


def test_one_run_says_what_moved() -> None:
    policy = {"trained_parameters": 1, "frozen_parameters": 2, "frozen_unchanged": False, "moved": ["bn1.running_mean"]}
    assert "frozen (CHANGED: bn1.running_mean)" in tables.run_text(result(policy=policy))


def test_one_run_with_a_regression_head() -> None:
    text = tables.run_text(result(test={"age": {"mae": 1.2345678, "rmse": 2.0, "r2": 0.5, "n": 9}}, per_domain={}))
    assert "age" in text
    assert "R2 0.500" in text
    assert "MAE 1.235" in text


def test_one_run_without_test_images_or_a_policy() -> None:
    assert tables.run_text({"test": {}}) == "no test images"


def test_one_domain_has_no_table_of_domains() -> None:
    one = result()
    one["per_domain"].pop("dslr")
    assert "amazon" not in tables.run_text(one)


def test_backbone_lines_come_one_by_one() -> None:
    asked = []

    def rows() -> Any:
        for name, parameters, licence in (("resnet18", 11176512, "MIT"), ("torchvision:squeezenet1_1", 722496, "")):
            asked.append(name)
            yield CatalogueRow(name, "timm", parameters, 512, 5, licence, "hub")

    lines = tables.backbone_lines(rows())
    assert next(lines).split() == ["backbone", "parameters", "width", "stages", "licence", "weights"]
    assert asked == []
    assert next(lines).split() == ["resnet18", "11,176,512", "512", "5", "MIT", "hub"]
    assert asked == ["resnet18"]
    assert [line.split() for line in lines] == [
        ["torchvision:squeezenet1_1", "722,496", "512", "5", "not", "stated", "hub"]
    ]


def test_shortlist_lines_come_one_by_one() -> None:
    asked = []

    def rows() -> Any:
        first = CatalogueRow("resnet18.a1_in1k", "timm", 11176512, 512, 5, "Apache-2.0", "store")
        for row in (
            ShortlistRow(first, 73.158, 288, 224, 1234.56, True),
            ShortlistRow(first, 80.858, 224, 224, 49.6, False),
            ShortlistRow(replace(first, licence=""), None, None, 256, 4.25, False),
        ):
            asked.append(row)
            yield row

    lines = tables.shortlist_lines(rows())
    assert next(lines).split()[-5:] == ["parameters", "images/s", "size", "licence", "weights"]
    assert asked == []
    own = ["11,176,512", "1,235", "224", "Apache-2.0", "store"]
    assert next(lines).split() == ["resnet18.a1_in1k", "73.2", "(288)", *own]
    assert next(lines).split()[1:4] == ["80.9", "11,176,512", "~50"]
    assert next(lines).split()[1:] == ["-", "11,176,512", "~4.2", "256", "not", "stated", "store"]
    assert "'*'" in list(lines)[-1]


def test_compared() -> None:
    compared = {
        "against": "linear_probe",
        "runs": {"linear_probe": result(0.8), "full": result(0.9)},
        "paired": {"full": {"object": {"difference": 0.1, "interval": [-0.02, 0.22], "p": 0.0412}}},
    }
    lines = tables.comparison_text(compared).splitlines()
    assert lines[0].startswith("policy")
    assert lines[0].endswith("object - linear_probe")
    assert lines[1].split() == [
        "linear_probe",
        "0.800",
        "[0.750,",
        "0.850]",
        "0.950",
        "[0.900,",
        "1.000]",
        "12,345",
        "12.3",
        "-",
    ]
    assert lines[2].endswith("+0.100 [-0.020, +0.220] p 0.041")
    assert len(lines) == 3
    compared["runs"]["full"] = result(0.9) | {"notes": ["of all", "full: 2 of 9 epochs fit into --minutes"]}
    compared["runs"]["linear_probe"] = result(0.8) | {"notes": ["of all"]}
    lines = tables.comparison_text(compared).splitlines()
    assert lines[3:] == ["", "note: full: full: 2 of 9 epochs fit into --minutes"]


def test_kept() -> None:
    trunk = {"backbone": "resnet18", "stage": "layer3", "precision": "float16", "view": None}
    drawn = {"backbone": "resnet18", "stage": "pooled features", "precision": "float32", "view": {"number": 2}}
    shelves = [
        CacheEntry("trunk", trunk, 1200, 3_500_000, 0.0, Path()),
        CacheEntry("trunk", drawn, 4, 500_000, 0.0, Path()),
        CacheEntry("inspection", {}, 7, 0, 0.0, Path()),
    ]
    lines = tables.cache_text(shelves).splitlines()
    assert lines[0].split() == ["cached", "precision", "images", "MB", "last", "used"]
    assert lines[1].split()[:6] == ["resnet18", "to", "layer3", "float16", "1,200", "3.5"]
    assert lines[2].startswith("resnet18 to pooled features, view 2")
    assert lines[3].split()[:3] == ["inspection", "7", "0.0"]
    assert lines[-1].split() == ["total", "4.0"]


def change(before: float, after: float) -> dict[str, Any]:
    return {"source_only": before, "adapted": after, "change": after - before, "n": 20}


def adaptation(**more: Any) -> dict[str, Any]:
    changes = (0.4, 0.3, 0.2, 0.1, 0, -0.1, -0.2)
    shift = {
        "strong": False,
        "a_distance": {"before": 1.9849, "after": 0.0654},
        "total_variation": {"em": 0.2322, "bbse": 0.168, "chance": 0.0885},
        "estimated_accuracy": 0.7145,
    }
    source_only = report(0.7)
    del source_only["calibration_error"]  # only its classes are compared
    return result(
        config={"shift": {"source": ["amazon", "dslr"], "target": "webcam", "protocol": "transductive"}},
        images={"source": 2535, "target": 795, "target_labelled": 0, "test": 795},
        target={"object": report(0.9)},
        source_only={"object": source_only},
        selection={"rule": "auto", "chosen": "mcc, epoch 9", "oracle_accuracy": 0.91},
        paired={"object": {"difference": 0.2, "interval": [0.17, 0.23], "p": 0.0001}},
        per_class_change={name: change(0.5, 0.5 + by) for name, by in zip("abcdefg", changes, strict=True)},
        shift=shift,
        notes=["a note"],
        **more,
    )


def test_adapted() -> None:
    text = tables.adaptation_text(adaptation())
    lines = [line.split() for line in text.splitlines() if line]
    assert text.startswith("amazon, dslr -> webcam (transductive): 2535 labelled source images, 795 unlabelled ")
    assert ["source", "only", "0.700", "[0.650,", "0.750]", "0.500", "-"] in lines
    assert ["adapted", "0.900", "[0.850,", "0.950]", "0.700", "0.025"] in lines
    assert "adapted - source only: +0.200 [+0.170, +0.230], p 0.0001" in text
    first = lines.index(["largest", "gains", "and", "losses", "source", "only", "adapted", "change", "n"])
    assert lines[first + 1] == ["a", "0.500", "0.900", "+0.400", "20"]
    assert [line[0] for line in lines[first + 1 : first + 6]] == list("abcfg")
    assert "\n  proxy A-distance of the domains 1.98 before, 0.07 after (0: indistinguishable" in text
    assert "\n  class proportions differ by about 0.23, no more than errors of the estimate explain\n" in text
    assert "estimated accuracy of a standardised source classifier: 71%" in text
    assert (
        "chosen without target labels (--rule auto): method mcc, epoch 9; best candidate by target labels (oracle"
        in text
    )
    assert text.endswith("note: a note")


def test_adapted_where_nothing_could_be_measured() -> None:
    bare = adaptation()
    bare |= {"paired": {}, "per_class_change": {}, "source_only": {"object": {"n": 0}}, "target": {"object": {"n": 0}}}
    bare["selection"]["oracle_accuracy"] = None
    bare["shift"] |= {"strong": True, "a_distance": {"before": None, "after": None}, "estimated_accuracy": None}
    text = tables.adaptation_text(bare)
    assert "largest" not in text
    assert "A-distance" not in text
    assert "right on" not in text
    assert "None" not in text
    assert "class proportions differ by about 0.23, a strong label shift" in text
    assert "\n\nno target labels: accuracy is not measured\n\n" in text
    assert "0.000" not in text


def test_an_estimate_of_the_shift_stands_beside_what_the_labels_say() -> None:
    shift = {"shift": adaptation()["shift"] | {"open_set": True, "absent": ["mug"]}}
    assert tables.shift_lines(shift)[-1] == "images of the target may show objects that the source lacks"
    assert "probably absent from the target: mug" in tables.shift_lines(shift)
    told = tables.shift_lines(shift | {"shift_by_labels": {"total_variation": 0.11, "new_objects": 0.0}})
    assert told[-1].endswith("lacks (by its labels none do)")
    assert told[1].startswith("class proportions differ by about 0.23 (by its labels 0.11), no more than")
    told = tables.shift_lines(shift | {"shift_by_labels": {"total_variation": 0.4, "new_objects": 0.25}})
    assert told[-1].endswith("lacks (by its labels 25% of its images do)")


def test_an_unreliable_estimate_of_the_shift_calls_nothing_strong() -> None:
    lines = tables.shift_lines({"shift": adaptation()["shift"] | {"reliable": False}})
    assert lines[1].endswith("not believed, since the source classifier knows too little about the target")


def test_adapted_where_no_class_changed() -> None:
    same = adaptation() | {"per_class_change": {"a": change(0.5, 0.5)}}
    assert "largest" not in tables.adaptation_text(same)


def test_names_from_elsewhere_cannot_steer_a_terminal_or_break_a_table() -> None:
    text = tables.text_table(["object", "n"], [["\x1b[2J\nfake", "1"], ["\u202egnp", "\udcff"]])
    assert len(text.splitlines()) == 3
    assert "\\u001b[2J\\u000afake" in text
    assert not set(text) & set("\x1b\u202e\udcff")
