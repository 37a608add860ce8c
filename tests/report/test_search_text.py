"""Console text of a search and of a range test, from their results alone."""

from transfer.report.search_text import lr_find_text, search_text


def test_best_trials_come_first_with_the_next_command(search_result) -> None:
    given = search_result(hidden="64-32")
    text = search_text(given)
    rows = text.split("\n\n")[0].splitlines()
    assert len(rows) == 11
    values = [float(row.split()[1]) for row in rows[1:]]
    assert values == sorted(values, reverse=True)
    assert values[0] == round(given["best"]["val_acc"], 4)
    assert "30 trials in 15.0 s, 20 of them stopped early" in text
    assert "note: look out" in text
    assert f"--lr {given['best']['settings']['lr']:.4g} --weight-decay" in text
    assert "--hidden 64,32" in text
    assert "no test image was used" in text


def test_suggested_rate() -> None:
    found = {"steepest": 3e-3, "minimum_over_ten": 1e-3, "suggestion": 1e-3}
    assert lr_find_text(found).endswith("suggested: --lr 0.001")
