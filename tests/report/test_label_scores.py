from transfer.report.label_scores import label_rows, list_label_tables


def scores(ap, n=10):
    return {"ap": ap, "f1": ap / 2 if ap else None, "precision": 1.0, "recall": 0.5, "threshold": 0.4, "n": n}


def report(count):
    return {
        "map": 0.5,
        "micro_f1": 0.6,
        "macro_f1": 0.4,
        "n": 30,
        "interval": {"map": [0.4, 0.6]},
        "per_label": {f"l{i}": scores(i / 100 + 0.1) for i in range(count)} | {"unseen": scores(None, 0)},
    }


def test_labels_are_listed_with_the_worst_first() -> None:
    rows, more = label_rows(report(5))
    assert [row["name"] for row in rows] == ["l0", "l1", "l2", "l3", "l4"]
    assert more == 0
    rows, more = label_rows(report(100), most=8)
    assert [row["name"] for row in rows] == ["l0", "l1", "l2", "l3", "l4", "l5", "l98", "l99"]
    assert more == 92


def test_tables_of_the_console() -> None:
    (head, rows), (columns, labels) = list_label_tables(
        {"test": {"tags": report(2), "object": {"accuracy": 1.0, "n": 3}}}
    )
    assert head == ["test", "mAP", "micro-F1", "macro-F1", "n"]
    assert rows == [["tags", "0.500 [0.400, 0.600]", "0.600", "0.400", "30"]]
    assert columns == ["tags", "AP", "F1", "threshold", "n"]
    assert labels == [["l0", "0.100", "0.050", "0.400", "10"], ["l1", "0.110", "0.055", "0.400", "10"]]
    assert list_label_tables({"test": {"object": {"accuracy": 1.0, "n": 3}}}) == []
