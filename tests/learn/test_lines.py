from transfer.learn.lines import in_parts, in_words


def test_what_a_phase_chose() -> None:
    assert in_words(7) == "7 epochs"
    assert in_words({"object": 0.0123, "domain": 1.0}) == "strength object 0.012, domain 1"
    assert in_words({"object": {"strength": 0.5, "percent": 10}}) == "strength object 0.5 on 10 %"


def test_a_note_only_where_memory_was_short() -> None:
    assert in_parts([1, 1], 64) == []
    (note,) = in_parts([1, 4], 64)
    assert note.startswith("out of memory: batches of 64 taken in 4 parts")
