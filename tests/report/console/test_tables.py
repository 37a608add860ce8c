import pytest

from transfer.report.console.tables import explain_intervals, text_table


def test_table_first_column_left_the_others_right() -> None:
    text = text_table(["name", "n"], [["a", "1"], ["longer name", "1,000"]])
    assert text.splitlines() == ["name             n", "a                1", "longer name  1,000"]


def test_table_without_rows() -> None:
    assert text_table(["name", "n"], []) == "name  n"


def test_table_has_no_trailing_spaces() -> None:
    assert all(line == line.rstrip() for line in text_table(["a", "b"], [["x", ""], ["long", "y"]]).splitlines())


@pytest.mark.parametrize("rows", [[["a"]], [["a", "b", "c"]]])
def test_table_refuses_ragged_rows(rows: list[list[str]]) -> None:
    with pytest.raises((ValueError, IndexError)):
        text_table(["name", "n"], rows)


def test_names_from_elsewhere_cannot_steer_a_terminal_or_break_a_table() -> None:
    text = text_table(["object", "n"], [["\x1b[2J\nfake", "1"], ["\u202egnp", "\udcff"]])
    assert len(text.splitlines()) == 3
    assert "\\u001b[2J\\u000afake" in text
    assert not set(text) & set("\x1b\u202e\udcff")


def test_intervals_are_explained_where_there_are_some() -> None:
    assert explain_intervals("object [new]  0.9") == "object [new]  0.9"
    assert explain_intervals("object  0.9 [0.8, 1.0]").splitlines() == ["object  0.9 [0.8, 1.0]", "[ ]: 95 % interval"]
