from transfer.training.log_lines import describe_choice, format_epoch, note_divided_batches


def test_an_epochs_line_tells_the_cosine_where_it_was_measured():
    line = {"phase": "partial", "epoch": 2, "of": 9, "loss": 0.5, "val": {"object": 0.75}, "seconds": 1.0}
    plain = format_epoch(line)
    assert plain.split() == ["partial", "epoch", "2/9", "loss", "0.5000", "val", "object", "0.750", "1.0", "s"]
    told = format_epoch(line | {"interference": {"cosine": {"object domain": -0.25}, "conflict": {}, "length": {}}})
    assert told == plain.replace("  1.0 s", "  cosine object domain -0.250  1.0 s")


def test_the_line_of_a_solved_phase_names_the_tolerance_of_its_accuracy() -> None:
    """Lines of single L2 values have the accuracy at the coarse tolerance, which may differ at the chosen value."""
    line = {"phase": "probe", "solved": {"domain": 0.01}, "val": {"domain": 0.75}, "seconds": 1.0}
    assert format_epoch(line) == "probe      solved to the final tolerance: L2 domain 0.01  val domain 0.750  1.0 s"


def test_what_a_phase_chose() -> None:
    assert describe_choice(7) == "7 epochs"
    assert describe_choice({"object": 0.0123, "domain": 1.0}) == "L2 object 0.012, domain 1"
    assert describe_choice({"object": {"strength": 0.5, "percent": 10}}) == "L2 object 0.5 on 10 %"
    assert describe_choice({"object": {"all stages": 0.5, "top": 1.0}}) == "L2 object 0.5 on all stages and 1 on top"


def test_a_note_only_where_memory_was_short() -> None:
    assert note_divided_batches([1, 1], 64) == []
    (note,) = note_divided_batches([1, 4], 64)
    assert note.startswith("out of memory: batches of 64 were divided into 4 parts")
