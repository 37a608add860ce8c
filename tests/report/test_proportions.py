from transfer.report.proportions import SHOWN, classes, domains


def test_the_worst_class_comes_first_and_of_many_only_the_ends():
    some = {"per_class": {f"c{i}": {"recall": i / 100, "n": 7, "precision": None} for i in range(100)}}
    some["per_class"] |= {"only called": {"recall": None, "precision": 0.0, "n": 0}}
    first, more = classes(some)
    shares = [row["share"] for row in first]
    assert len(first) + len(more) == 100
    assert len(first) < SHOWN
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0.0, 0.99)
    assert min(row["share"] for row in more) > shares[SHOWN // 2 - 1]
    few, none = classes({"per_class": {"a": {"recall": 1.0, "n": 2}, "b": {"recall": 0.5, "n": 2}}})
    assert [row["name"] for row in few] == ["b", "a"]
    assert none == []
    assert classes({"r2": 1.0}) == ([], [])


def test_domains_by_head():
    found = domains({"dslr": {"object": {"accuracy": 0.5, "n": 4}, "domain": {"n": 0}, "angle": {"r2": 1.0, "n": 4}}})
    (row,) = found["object"]
    assert (row["name"], row["share"], row["n"]) == ("dslr", 0.5, 4)
    assert set(found) == {"object"}
