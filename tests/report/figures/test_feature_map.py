import numpy as np

from transfer.report.figures.feature_map import MAX_LABEL, draw_maps


def exhibit(of_objects, of_domains, **names):
    state: dict = {"title": "before", "places": np.random.default_rng(0).normal(size=(len(of_objects), 2)).tolist()}
    return {"states": [state | {"objects": of_objects, "domains": of_domains}], "names": names}


def test_each_state_by_object_and_by_domain():
    names = {"objects": ["mug_cup", "x" * 40, "unseen"], "domains": ["dslr", "webcam"]}
    (drawn,) = draw_maps(exhibit([0, 1, 0, -1], [0, 0, 1, 1], **names))
    assert (drawn["title"], drawn["n"]) == ("before", 4)
    assert "dslr (2)" in drawn["domains"]
    assert "webcam (2)" in drawn["domains"]
    assert "mug cup" in drawn["objects"]
    assert "x" * (MAX_LABEL - 1) + "…" in drawn["objects"]
    assert "unseen" not in drawn["objects"]


def test_nothing_known_nothing_named_and_nothing_mapped():
    (drawn,) = draw_maps(exhibit([-1, -1], [-1, -1], objects=["a"], domains=["d"]))
    assert ">a<" not in drawn["objects"]
    assert draw_maps({}) == []
    assert draw_maps(exhibit([], [], objects=["a"], domains=["d"])) == []


def test_one_domain_needs_no_map_of_domains_and_labels_are_called_labels():
    (drawn,) = draw_maps(exhibit([0, 1], [0, 0], objects=["red", "round"], domains=["all"]), "labels")
    assert drawn["domains"] is None
    assert "by labels" in drawn["objects"]
