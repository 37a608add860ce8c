import json
import logging

from transfer.cli.output import log_end, print_result, print_text


def test_control_characters_in_names_are_escaped_and_lines_stay_lines(capsys):
    print_text("a\x1b[31m.png\nb.png")
    first, second = capsys.readouterr().out.splitlines()
    assert "\x1b" not in first
    assert first.endswith("[31m.png")
    assert second == "b.png"


def test_a_result_is_one_line_of_json_or_a_text_below_an_empty_line(capsys):
    result = {"name": "Blütenstaub", "accuracy": 0.5}
    print_result(True, result, lambda found: "unused")
    assert json.loads(capsys.readouterr().out) == result
    print_result(False, result, lambda found: f"accuracy {found['accuracy']}")
    assert capsys.readouterr().out == "\naccuracy 0.5\n"


def test_empty_last_lines_are_not_logged(caplog):
    with caplog.at_level(logging.INFO, logger="transfer"):
        log_end("saved in runs/a", "", "next: transfer predict")
    assert [record.getMessage() for record in caplog.records] == ["saved in runs/a", "next: transfer predict"]
