import csv
import io
import json

from transfer.evaluation.prediction_lines import format_head, format_lines

NAMES = ["a.png", "two\nlines.png", 'in "quotes", and commas.png', "not \udcff text.png", "right \u202eto left.png"]
ROWS = [{"path": name, "object": "mug", "object_top": [["mug", 0.75], ["pen", 0.25]], "number": 1.5} for name in NAMES]
BAD = {"path": "bad.png", "error": "bad image bad.png: not an image"}


def test_every_name_survives_both_forms():
    rows, columns = [BAD, *ROWS], list(ROWS[0])
    for ascii_only in (False, True):
        lines = format_lines(rows, "json", columns, ascii_only=ascii_only)
        assert all(line.endswith("\n") and line.count("\n") == 1 for line in lines)
        assert [json.loads(line) for line in lines] == rows
        assert "".join(lines).isascii() >= ascii_only
    text = "".join([format_head("csv", columns), *format_lines(rows, "csv", columns, ascii_only=False)])
    read = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [row["path"] for row in read] == ["bad.png", *NAMES]
    assert (read[0]["error"], read[0]["object"]) == (BAD["error"], "")
    assert (read[1]["error"], read[1]["object_top"], read[1]["number"]) == ("", "mug:0.75 pen:0.25", "1.5")


def test_lists_are_one_cell():
    row = {
        "path": "a",
        "tags": ["red", "round"],
        "none": [],
        "object_and_domain_set": [["mug", "photo"]],
        "object": None,
    }
    (line,) = format_lines([row], "csv", list(row), ascii_only=False)
    assert line == "a,red|round,none,mug in photo,,\n"


def test_json_has_no_head():
    assert format_head("json", ["path"]) == ""
    assert format_head("csv", ["path", "object"]) == "path,object,error\n"
