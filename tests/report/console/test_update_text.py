from transfer.report.console.update_text import SHOWN_CLASSES, class_rows_changed, comparison_rows, update_text


def compared(before: float, after: float, n: int = 10) -> dict:
    difference = after - before
    paired = {"difference": difference, "interval": [difference - 0.1, difference + 0.1], "p": 0.03, "images": n}
    return {"n": n, "before": before, "after": after, "paired": paired}


def of_class(before: float, after: float) -> dict:
    return {"n": 4, "before": before, "after": after, "change": after - before}


RESULT = {
    "run": {"test": {}, "notes": []},
    "changes": {
        "images": {"old": 4110, "new": {"train": 13, "val": 3, "test": 4}},
        "new_classes": ["phone", "mug"],
        "new_domains": [],
    },
    "old_test": {"object": compared(0.9, 0.8), "domain": compared(1.0, 1.0)},
    "new_test": {"object": compared(0.0, 0.75, 4)},
    "per_class": {"object": {"a": of_class(0.5, 0.25), "b": of_class(1.0, 1.0), "phone": of_class(0.0, 0.75)}},
    "notes": ["1 label corrected: x: object a is b"],
}


def test_the_text_says_what_was_added_and_what_changed() -> None:
    lines = update_text(RESULT).splitlines()
    assert "4,110 old images, 20 new ones (train 13, val 3, test 4)" in lines
    assert "new classes: phone, mug" in lines
    assert not any("new domains" in line for line in lines)
    row = next(line for line in lines if line.startswith("object, old test images"))
    assert " ".join(row.split()) == "object, old test images 10 0.900 0.800 -0.100 [-0.200, +0.000] p 0.03"
    assert [line.split() for line in lines if line.startswith(("a ", "b ", "phone "))] == [
        ["phone", "4", "0.000", "0.750", "+0.750"],
        ["a", "4", "0.500", "0.250", "-0.250"],
    ]
    assert lines[-1] == "note: 1 label corrected: x: object a is b"


def test_rows_are_by_head_and_by_old_and_new_test_images() -> None:
    assert [row[0] for row in comparison_rows(RESULT)] == [
        "object, old test images",
        "domain, old test images",
        "object, new test images",
    ]


def test_of_many_classes_the_largest_gains_and_losses_are_listed() -> None:
    classes = {f"c{i}": of_class(0.5, 0.5 + i / 100) for i in range(-20, 21)}
    names = [row[0] for row in class_rows_changed(classes)]
    assert names == [f"c{i}" for i in [*range(20, 10, -1), *range(-11, -21, -1)]]
    assert len(names) == 2 * SHOWN_CLASSES
