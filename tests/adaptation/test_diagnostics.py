import json
from dataclasses import replace
from statistics import fmean
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from transfer.adaptation import diagnostics
from transfer.adaptation.adapt import adapt
from transfer.adaptation.domains import split_domains
from transfer.adaptation.label_shift import proxy_a_distance
from transfer.adaptation.selection.best_candidate import CandidateModel
from transfer.adaptation.selection.evidence import CandidateEvidence
from transfer.adaptation.task import AdaptationTask
from transfer.data.duplicates import Inspection
from transfer.data.table import ImageTable, Target, make_softmax_target
from transfer.errors import TransferError
from transfer.report.console.adaptation_text import adaptation_text
from transfer.training.setup import Images

CLASSES = 6


def table_of(domain, objects):
    n = len(objects)
    empty = np.full(n, "")
    targets = {"object": make_softmax_target(objects), "domain": make_softmax_target(domain)}
    return ImageTable(np.array([f"/{i}" for i in range(n)]), targets, empty, empty, "set")


def stage_of(*, val=0.25, per_class=40, lacking=(), unknown=0, target_rows=None, seed=0, moved=9.0):
    """Return a stage of well separated blobs, the target's moved far away, and one for which no shift shows."""
    rng = np.random.default_rng(seed)
    kinds = CLASSES + unknown
    centres = 6 * rng.normal(size=(kinds, 12))
    source = np.repeat(np.arange(CLASSES), per_class)
    target = np.repeat([k for k in range(kinds) if k not in lacking], per_class)[:target_rows]
    both = np.concatenate([source, target])
    domain = np.repeat(["ink", "oil"], [len(source), len(target)])
    features = centres[both] + rng.normal(size=(len(both), 12)) + np.where(domain == "oil", moved, 0.0)[:, None]
    table = table_of(domain.tolist(), [f"thing {k}" for k in both])
    n = len(both)
    seen = Inspection(np.array([str(i) for i in range(n)]), np.zeros(n, np.uint64), np.full(n, ""))
    these, _ = split_domains(table, seen, sources=["ink"], target="oil", val=val)
    held = torch.from_numpy(features.astype(np.float32))
    backbone = torch.nn.Linear(1, 1)
    backbone.stages = ()
    feed = SimpleNamespace(load_all_views=lambda rows: (rows, held[torch.from_numpy(rows)]))
    return AdaptationTask(these, SimpleNamespace(cut=0, backbone=backbone), feed)


def evidence_of(stage, moved=0.0):
    domains = stage.domains
    source, val, target = (stage.pooled(rows).numpy() for rows in (domains.train, domains.val, domains.unlabelled))
    labels, logits = stage.labels.numpy(), np.zeros((1, len(stage.classes)), np.float32)
    return CandidateEvidence(
        source,
        labels[domains.train],
        val,
        logits.repeat(len(val), 0),
        labels[domains.val],
        target + np.float32(moved),
        logits.repeat(len(target), 0),
    )


def test_the_same_classes_raise_no_flag():
    stage = stage_of()
    block, notes = diagnostics.describe_shift(stage, evidence_of(stage, moved=-9.0))
    assert notes == []
    assert not any(block[name] for name in diagnostics.SHIFT_FLAGS)
    assert block["absent"] == []
    assert block["estimated_accuracy"] > 0.9
    assert block["total_variation"]["em"] < 0.05
    assert block["a_distance"]["before"] == 2.0
    assert block["a_distance"]["after"] < 0.5
    assert list(block["prior"]) == list(stage.classes)
    for side in ("source", "target"):
        assert sum(share[side] for share in block["prior"].values()) == pytest.approx(1, abs=1e-4)


def test_a_distances_use_pooled_features_and_the_chosen_candidates():
    stage = stage_of()
    chosen = evidence_of(stage, moved=-8.0)
    block, _ = diagnostics.describe_shift(stage, chosen, seed=3)
    raw = [stage.pooled(rows).numpy() for rows in (stage.domains.train, stage.domains.unlabelled)]
    assert block["a_distance"] == {
        "before": pytest.approx(proxy_a_distance(*raw, seed=3), abs=1e-6),
        "after": pytest.approx(proxy_a_distance(chosen.source_features, chosen.target_features, seed=3), abs=1e-6),
    }


def test_missing_classes_are_named():
    stage = stage_of(lacking=(1, 4), moved=2.0)
    block, notes = diagnostics.describe_shift(stage, evidence_of(stage))
    assert block["reliable"]
    assert block["strong"]
    assert block["partial"]
    assert block["absent"] == ["thing 1", "thing 4"]
    assert block["prior"]["thing 1"]["target"] < 0.01 < block["prior"]["thing 1"]["source"]
    assert "(thing 1, thing 4)" in notes[0]


def test_shares_on_which_classifiers_disagree_are_not_believed():
    """Without standardisation the source's classifier is lost on a target that moved this far."""
    block, notes = diagnostics.describe_shift(stage := stage_of(lacking=(1, 4)), evidence_of(stage))
    assert block["total_variation"]["em"] > 0.2
    assert not block["reliable"]
    assert not block["strong"]
    assert notes == []


def test_estimates_that_need_validation_rows_are_none_without_them():
    stage = stage_of(val=0)
    block, _ = diagnostics.describe_shift(stage, evidence_of(stage))
    assert block["estimated_accuracy"] is None
    assert block["total_variation"]["bbse"] is None
    json.dumps(block, allow_nan=False)


def test_a_single_target_image():
    stage = stage_of(target_rows=1)
    block, notes = diagnostics.describe_shift(stage, evidence_of(stage))
    assert block["a_distance"] == {"before": None, "after": None}
    assert block["looseness"] is None
    assert notes == []
    json.dumps(block, allow_nan=False)


def test_features_that_are_not_finite_have_no_distance():
    stage = stage_of()
    block, _ = diagnostics.describe_shift(stage, evidence_of(stage, moved=np.nan))
    assert block["a_distance"]["after"] is None
    assert block["a_distance"]["before"] == 2.0


def test_the_stage_stays_as_it_was():
    stage = stage_of()
    before = stage.domains
    diagnostics.describe_shift(stage, evidence_of(stage))
    assert stage.domains is before
    assert len(before.val)


def test_flags_of_several_seeds():
    calm = {"strong": False, "partial": False, "open_set": False, "reliable": True, "absent": []}
    told = {"strong": True, "partial": True, "reliable": False, "absent": ["b", "a"]}
    blocks = [calm, calm | told, calm | {"absent": ["a", "c"]}]
    assert diagnostics.merge_shift_flags(blocks) == {
        "strong": True,
        "partial": True,
        "open_set": False,
        "reliable": False,
        "absent": ["b", "a", "c"],
    }
    assert diagnostics.merge_shift_flags([calm]) == calm


def answered(true, said):
    names = ("ape", "bee", "cat", "dog")
    n = len(true)
    targets = {"object": Target(np.array(true), classes=names), "domain": make_softmax_target(["oil"] * n)}
    paths = np.array([f"/{i}" for i in range(n)])
    table = ImageTable(paths, targets, np.full(n, ""), np.full(n, ""), "set")
    return table, {"object": np.eye(3, dtype=np.float32)[said]}


def test_equal_states_are_mapped_once():
    stage = stage_of()
    still, moved = (
        CandidateModel("source_only", evidence_of(stage), None),
        CandidateModel("mcc", evidence_of(stage, 1.0), None),
    )
    again = CandidateModel("source_only", evidence_of(stage), None)
    assert diagnostics.map_states(still, again) == {"before and after (source_only)": still.evidence}
    assert diagnostics.map_states(still, moved) == {"before": still.evidence, "after (mcc)": moved.evidence}


def test_gains_against_a_naive_count():
    rng = np.random.default_rng(0)
    tests, before = [], []
    for _ in range(3):
        true = rng.integers(-1, 4, 50)  # the last class is none that a model can answer
        tests.append(answered(true, rng.integers(0, 3, 50)))
        before.append(rng.integers(0, 3, 50))
    out = diagnostics.compare_with_source_only(tests, before)
    delta = []
    for i, name in enumerate(("ape", "bee", "cat", "dog")):
        was, now, images = [], [], set()
        for (table, answers), old in zip(tests, before, strict=True):
            for row in range(50):
                if table.object[row] == i:
                    was.append(old[row] == i)
                    now.append(answers["object"][row].argmax() == i)
                    images.add(table.paths[row])
        delta += [int(b) - int(a) for a, b in zip(was, now, strict=True)]
        assert out["per_class_change"][name] == {
            "source_only": pytest.approx(fmean(was)),
            "adapted": pytest.approx(fmean(now)),
            "change": pytest.approx(fmean(now) - fmean(was)),
            "n": len(images),
        }
    changes = [change["change"] for change in out["per_class_change"].values()]
    assert changes == sorted(changes, reverse=True)
    assert out["per_class_change"]["dog"]["adapted"] == 0
    assert out["paired"]["object"]["difference"] == pytest.approx(fmean(delta))
    assert out["paired"]["object"]["images"] <= 50


def test_gains_where_no_label_is_known():
    assert diagnostics.compare_with_source_only([answered([-1, -1], [0, 1])], [np.array([1, 1])]) == {
        "per_class_change": {},
        "paired": {},
    }


def test_what_the_labels_say_of_the_shift():
    source = answered([0, 0, 1, 2], [0] * 4)[0]
    source = replace(source, targets={"object": Target(source.object, classes=("ape", "bee", "cat"))})
    table = answered([0, 0, 1, 3, -1], [0] * 5)[0]  # the last class is none of the source's
    assert table.objects == ("ape", "bee", "cat", "dog")
    told = diagnostics.measure_shift_by_labels(source, table)
    assert told == {"total_variation": 0.25, "new_objects": 0.25}  # half of |0| + |0| + |-0.25| + |0.25|
    assert diagnostics.measure_shift_by_labels(source, answered([-1], [0])[0]) == {}


def relabelled(images, how):
    """Return `images` with the objects of the target shuffled or deleted."""
    table = images.table
    mine = np.flatnonzero(table.domain == table.domains.index("striped"))
    objects = table.object.copy()
    objects[mine] = np.random.default_rng(1).permutation(objects[mine]) if how == "shuffled" else -1
    return Images(
        replace(table, targets=table.targets | {"object": Target(objects, classes=table.objects)}), images.inspection
    )


@pytest.mark.parametrize("how", ["shuffled", "deleted"])
@pytest.mark.parametrize("method", ["standardise", "mcc"])
def test_the_shift_uses_no_target_label(config, tiny, how, method):
    made = config(method=(method,), val=0.2)
    told, untold = (adapt(made, images=images).result for images in (tiny, relabelled(tiny, how)))
    assert told["shift"] == untold["shift"]
    assert told["per_class_change"] != untold["per_class_change"]


def test_several_seeds(config, tiny):
    run = adapt(config(method=("mcc",), val=0.2, seeds=(0, 1)), images=tiny)
    result = run.result
    each = [seed["shift"] for seed in result["seeds"]]
    assert result["shift"]["total_variation"]["em"] == pytest.approx(fmean(e["total_variation"]["em"] for e in each))
    assert "em" in result["sd"]["shift"]["total_variation"]
    assert all(result["shift"][name] == (each[0][name] or each[1][name]) for name in diagnostics.SHIFT_FLAGS)
    assert result["per_class_change"] == diagnostics.compare_with_source_only(run.tests, run.before)["per_class_change"]
    for name, change in result["per_class_change"].items():  # the same images each time: the mean of both
        assert change["adapted"] == pytest.approx(
            fmean(seed["per_class_change"][name]["adapted"] for seed in result["seeds"])
        )
    text = adaptation_text(result)
    assert "shift, estimated without target labels:\n  " in text
    assert f"adapted - source only: {result['paired']['object']['difference']:+.3f} [" in text


def test_the_map_goes_into_the_run_folder(config, tiny, tmp_path):
    with pytest.raises(TransferError, match=r"^--map is written into the run folder: add --out"):
        replace(config(), map=True)
    adapt(replace(config(out=tmp_path / "run", seeds=(0, 1)), map=True), images=tiny)
    for folder in ("run", "run/seed0", "run/seed1"):
        assert (tmp_path / folder / "map.png").read_bytes().startswith(b"\x89PNG")
    adapt(config(out=tmp_path / "run", overwrite=True), images=tiny)
    assert not (tmp_path / "run" / "map.png").exists()
