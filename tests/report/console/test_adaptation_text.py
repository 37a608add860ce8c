from typing import Any

from run_results import report, result

from transfer.report.console.adaptation_text import adaptation_text, shift_lines


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
    text = adaptation_text(adaptation())
    lines = [line.split() for line in text.splitlines() if line]
    assert text.startswith("amazon, dslr -> webcam (transductive): 2535 labelled source images, 795 unlabelled ")
    assert ["source", "only", "0.700", "[0.650,", "0.750]", "0.500", "-"] in lines
    assert ["adapted", "0.900", "[0.850,", "0.950]", "0.700", "0.025"] in lines
    assert "\n[ ]: 95 % interval\n" in text
    assert "adapted - source only: +0.200 [+0.170, +0.230] p 0.0001" in text
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
    text = adaptation_text(bare)
    assert "largest" not in text
    assert "A-distance" not in text
    assert "right on" not in text
    assert "None" not in text
    assert "class proportions differ by about 0.23, a strong label shift" in text
    assert "\n\nno target labels: accuracy is not measured\n\n" in text
    assert "0.000" not in text


def test_an_estimate_of_the_shift_stands_beside_what_the_labels_say() -> None:
    shift = {"shift": adaptation()["shift"] | {"open_set": True, "absent": ["mug"]}}
    assert shift_lines(shift)[-1] == "images of the target may show objects that the source lacks"
    assert "probably absent from the target: mug" in shift_lines(shift)
    told = shift_lines(shift | {"shift_by_labels": {"total_variation": 0.11, "new_objects": 0.0}})
    assert told[-1].endswith("lacks (by its labels none do)")
    assert told[1].startswith("class proportions differ by about 0.23 (by its labels 0.11), no more than")
    told = shift_lines(shift | {"shift_by_labels": {"total_variation": 0.4, "new_objects": 0.25}})
    assert told[-1].endswith("lacks (by its labels 25% of its images do)")


def test_an_unreliable_estimate_of_the_shift_calls_nothing_strong() -> None:
    lines = shift_lines({"shift": adaptation()["shift"] | {"reliable": False}})
    assert lines[1].endswith("not believed, since the source classifier knows too little about the target")


def test_adapted_where_no_class_changed() -> None:
    same = adaptation() | {"per_class_change": {"a": change(0.5, 0.5)}}
    assert "largest" not in adaptation_text(same)
