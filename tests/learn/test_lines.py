from transfer.learn.lines import epoch_line


def test_an_epochs_line_tells_the_cosine_where_it_was_measured():
    line = {"phase": "partial", "epoch": 2, "loss": 0.5, "val": {"object": 0.75}, "seconds": 1.0}
    plain = epoch_line(line, 9)
    assert plain.split() == ["partial", "epoch", "2/9", "loss", "0.5000", "val", "object", "0.750", "1.0", "s"]
    told = epoch_line(line | {"interference": {"cosine": {"object domain": -0.25}, "conflict": {}, "length": {}}}, 9)
    assert told == plain.replace("  1.0 s", "  cosine object domain -0.250  1.0 s")
