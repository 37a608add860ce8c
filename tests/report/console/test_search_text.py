"""Console text of a search and of a range test, from their results alone."""

from transfer.report.console.search_text import lr_find_text, search_text


def test_best_trials_come_first(search_result) -> None:
    given = search_result(hidden="64-32")
    text = search_text(given)
    rows = text.split("\n\n")[0].splitlines()
    assert len(rows) == 11
    values = [float(row.split()[1]) for row in rows[1:]]
    assert values == sorted(values, reverse=True)
    assert values[0] == round(given["best"]["val_acc"], 4)
    assert "30 trials in 15.0 s, 20 stopped early" in text
    assert "note: look out" in text
    assert "no test image was used; --final trains with the best settings and tests once" in text
    assert "solved linear probe" not in text


def test_the_solved_probe_stands_beside_the_best_trial(search_result) -> None:
    probe = {"val_acc": 0.75, "val": {"object": 0.5, "domain": 1.0}, "seconds": 2.0}
    text = search_text(search_result() | {"solved_probe": probe})
    assert "reaches validation accuracy 0.750 (object 0.500, domain 1.000) in 2.0 s; the best trial: 0." in text


def test_suggested_rate() -> None:
    found = {"steepest": 3e-3, "minimum_over_ten": 1e-3, "suggestion": 1e-3, "notes": ["look out"]}
    found["solved_probe"] = {"val_acc": 0.75, "val": {"object": 0.75}, "seconds": 2.0}
    blocks = lr_find_text(found).split("\n\n")
    assert blocks[1:] == [
        "note: look out",
        "a solved linear probe, which has no learning rate, reaches validation accuracy 0.750 (object 0.750) in 2.0 s",
        "suggested: --lr 0.001",
    ]
