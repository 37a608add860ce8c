import hashlib
import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from transfer.adaptation.domains import split_domains
from transfer.data.duplicates import Inspection
from transfer.data.folders import read_folder
from transfer.data.table import ImageTable, make_softmax_target
from transfer.errors import TransferError

SHARED = Path(__file__).parents[3] / "shared"
ROWS = ("train", "val", "labelled", "unlabelled", "test")


def table_of(domain, obj, split=None):
    """Return a table from names, ``""`` for unknown objects."""
    n = len(obj)
    targets = {"object": make_softmax_target(obj), "domain": make_softmax_target(domain)}
    empty = np.full(n, "", dtype="<U8")
    return ImageTable(
        np.array([f"/{i}" for i in range(n)], dtype=str),
        targets,
        empty if split is None else np.array(split, dtype="<U8"),
        empty,
        "set",
    )


def seen(contents):
    """Return an inspection of files with these contents."""
    n = len(contents)
    return Inspection(np.array([str(c) for c in contents]), np.zeros(n, np.uint64), np.full(n, ""))


def distinct(table):
    return seen(range(len(table)))


def even(per_class=10, domains=("ink", "oil", "wax"), objects="abcd"):
    """Return a table with `per_class` images of each object in each domain."""
    rows = [(d, o) for d in domains for o in objects for _ in range(per_class)]
    return table_of(*zip(*rows, strict=True))


def test_the_three_protocols():
    table = even(30)
    made, _ = split_domains(table, distinct(table), sources=["ink"], target="oil")
    assert [len(getattr(made, name)) for name in ROWS] == [108, 12, 0, 120, 120]
    assert np.bincount(table.object[made.val]).tolist() == [3, 3, 3, 3]
    assert made.notes == ()
    made, _ = split_domains(
        table, distinct(table), sources=["ink", "wax"], target="oil", protocol="inductive", test=0.25
    )
    assert [len(getattr(made, name)) for name in ROWS] == [216, 24, 0, 90, 30]
    made, _ = split_domains(table, distinct(table), sources=["ink", "wax"], target="oil", protocol="office", val=0)
    assert [len(getattr(made, name)) for name in ROWS] == [4 * (20 + 8), 0, 12, 108, 108]
    made, _ = split_domains(table, distinct(table), sources=["wax"], target="oil", protocol="office", target_labels=1)
    assert [len(getattr(made, name)) for name in ROWS] == [29, 3, 4, 116, 116]


def test_held_out_rows_do_not_depend_on_the_labels_drawn():
    table = even()
    how = {"sources": ["ink"], "target": "oil", "protocol": "inductive"}
    tests = {tuple(split_domains(table, distinct(table), **how, target_labels=k)[0].test) for k in (0, 1, 3)}
    assert len(tests) == 1


def test_the_office_protocol_takes_more_of_amazon_and_caltech():
    table = even(30, ("Caltech10", "amazon", "dslr", "webcam"))
    more = {name: 20 if name in ("Caltech10", "amazon") else 8 for name in table.domains}
    for source in table.domains:
        target = next(name for name in table.domains if name != source)
        made, _ = split_domains(table, distinct(table), sources=[source], target=target, protocol="office", val=0)
        assert np.bincount(table.object[made.train]).tolist() == [more[source]] * 4


def test_the_seed_matters():
    table = even()
    for how in ({}, {"protocol": "inductive"}, {"protocol": "office"}, {"target_labels": 2}):
        drawn = [
            split_domains(table, distinct(table), sources=["ink"], target="oil", seed=seed, **how)[0]
            for seed in range(4)
        ]
        assert len({str([getattr(made, name).tolist() for name in ROWS]) for made in drawn}) == 4


def test_duplicates_of_labelled_images_are_not_test_images():
    table = even(3, ("ink", "oil"), "ab")
    contents = [*range(6), 10, 10, 10, 12, 13, 13]
    made, _ = split_domains(table, seen(contents), sources=["ink"], target="oil", target_labels=1, seed=0)
    where = np.array(contents)
    assert not set(where[made.labelled]) & set(where[made.test])
    copies = len(made.unlabelled) - len(made.test)
    assert copies >= 2
    assert made.notes[-1] == f"{copies} images of oil left out of test: duplicates of, or grouped with, labelled ones"
    assert set(made.unlabelled) - set(made.test) == {r for r in made.unlabelled if where[r] in where[made.labelled]}


def test_duplicates_across_domains_are_counted():
    table = even(3, ("ink", "oil"), "ab")
    made, _ = split_domains(table, seen([0, 1, 2, 3, 4, 5, 0, 0, 3, 6, 7, 8]), sources=["ink"], target="oil", val=0)
    assert made.notes == ("3 of 6 images of oil are duplicates of source images",)
    assert len(made.test) == 6


def test_inductive_keeps_the_targets_own_test_split():
    domain, obj = ["ink"] * 6 + ["oil"] * 6, list("ababab") * 2
    given_ = ["train"] * 5 + ["test"] + ["train", "val", "test", "test", "train", "train"]
    table = table_of(domain, obj, given_)
    how = {"sources": ["ink"], "target": "oil", "val": 0}
    made, _ = split_domains(table, seen([*range(11), 8]), **how, protocol="inductive")
    assert made.test.tolist() == [8, 9]
    assert made.unlabelled.tolist() == [6, 7, 10]
    assert made.train.tolist() == [0, 1, 2, 3, 4, 5]
    assert made.notes == (
        "the data set's test split of the target is used",
        "1 image of the target left out: duplicates of, or grouped with, test images",
        "the data set's split is not used for the source",
    )
    made, _ = split_domains(table, distinct(table), **how)
    assert len(made.test) == 6
    assert made.notes == ("the data set's split is not used",)
    everything = table_of(domain, obj, [""] * 6 + ["test"] * 6)
    with pytest.raises(TransferError, match="none left to adapt to: all are in its test split"):
        split_domains(everything, distinct(table), **how, protocol="inductive")


def test_classes_that_only_the_target_has_are_no_outputs():
    domain, obj = ["ink"] * 4 + ["oil"] * 6, [*"bdbd", *"abcddd"]
    table = table_of(domain, obj)
    made, truth = split_domains(table, distinct(table), sources=["ink"], target="oil", val=0)
    assert made.table.objects == ("b", "d")
    assert made.table.object.tolist() == [0, 1, 0, 1] + [-1] * 6
    answers = truth.reveal(made.test)
    assert answers.tolist() == [2, 0, 3, 1, 1, 1]
    assert truth.notes(made.test)[0].startswith(
        "2 of 6 test images of oil show objects without any training label (a, c)"
    )
    assert made.notes == ()
    made, truth = split_domains(table, distinct(table), sources=["ink"], target="oil", val=0, target_labels=1)
    assert made.table.objects == ("a", "b", "c", "d")
    assert truth.notes(made.test) == ()
    made, _ = split_domains(table, distinct(table), sources=["ink"], target="oil", val=0, target_labels=2)
    assert made.notes == ("3 of 4 objects have fewer than 2 labels in oil (such as a): all are used",)


def test_a_third_domain_is_not_used_and_has_no_label():
    table = table_of(["ink"] * 4 + ["oil"] * 2 + ["wax"] * 2 + [""], [*"abab", *"ab", *"az", "a"])
    made, truth = split_domains(table, distinct(table), sources=["ink"], target="oil", val=0)
    assert made.table.object.tolist() == [0, 1, 0, 1] + [-1] * 5
    assert made.table.objects == truth.classes == ("a", "b")
    assert made.notes == ("1 image of unknown domain left out",)


def test_an_object_with_a_single_image_is_used_for_training():
    table = table_of(["ink"] * 11 + ["oil"] * 3, ["a"] * 10 + ["b"] + ["a", "a", "b"])
    made, _ = split_domains(table, distinct(table), sources=["ink"], target="oil", val=0.5)
    assert 10 in made.train
    assert made.notes == ("1 object with a single image, never drawn for val: b",)


def test_unlabelled_source_images_are_left_out():
    table = table_of(["ink"] * 5 + ["oil"] * 3, ["a", "", "b", "", "a"] + ["a"] * 3)
    made, _ = split_domains(table, distinct(table), sources=["ink"], target="oil", val=0)
    assert made.train.tolist() == [0, 2, 4]
    assert made.notes == ("2 images of unknown object in the source left out",)


def test_a_target_of_one_image_and_one_without_labels():
    table = table_of(["ink"] * 4 + ["oil"], [*"abab", "a"])
    how = {"sources": ["ink"], "target": "oil", "val": 0}
    made, truth = split_domains(table, distinct(table), **how)
    assert made.test.tolist() == [4]
    assert made.notes == ("oil has a single image: adapting to one image has little effect",)
    assert truth.known
    with pytest.raises(TransferError, match="oil has 1 image, none left to test on: none can be held out"):
        split_domains(table, distinct(table), **how, protocol="inductive")
    with pytest.raises(TransferError, match=r"oil has 1 image, none left to adapt to: all are labelled \(1\)"):
        split_domains(table, distinct(table), **how, target_labels=1)
    bare = table_of(["ink"] * 4 + ["oil"] * 2, [*"abab", "", ""])
    made, truth = split_domains(bare, distinct(bare), **how)
    assert not truth.known
    with pytest.raises(TransferError, match="--target-labels 2: no training image of oil has a label"):
        split_domains(bare, distinct(bare), **how, target_labels=2)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"sources": ["inc"]}, r"--source: no domain 'inc' \(did you mean 'ink'\?\): set has ink, oil, wax"),
        ({"target": "oils"}, r"--target: no domain 'oils' \(did you mean 'oil'\?\).*or --target-images FOLDER"),
        ({"target": "ink"}, "--target ink is a source too: adapt to another domain; set has ink, oil, wax"),
        ({"sources": []}, "--source is missing: set has ink, oil, wax"),
        ({"target": ""}, "--target is missing"),
        (
            {"protocol": "transductiv"},
            r"no protocol 'transductiv' \(did you mean 'transductive'.*\): one of transductive",
        ),
        ({"target_labels": -1}, "target_labels is -1"),
        ({"target_labels": 99}, r"oil has 40 images, none left to adapt to: all are labelled \(40\)"),
        ({"val": 1.0}, "val is 1.0"),
        ({"test": 0.0}, "test is 0.0"),
    ],
)
def test_bad_options(how, words):
    table = even()
    with pytest.raises(TransferError, match=words):
        split_domains(table, distinct(table), **({"sources": ["ink"], "target": "oil"} | how))


def test_bad_sets():
    def refused(table, words, contents=None, **how):
        with pytest.raises(TransferError, match=words):
            split_domains(table, seen(contents) if contents else distinct(table), sources=["ink"], target="oil", **how)

    refused(table_of(["all"] * 4, [*"abab"]), "set has one domain: adapting needs a source and a target")
    refused(table_of(["ink"] * 2 + ["oil"] * 2, ["", "", "a", "b"]), "--source: no image of ink has a label")
    refused(table_of(["ink"] * 2 + ["oil"] * 2, ["a", "a", "a", "b"]), "at least two objects, found only 'a'")
    table = even()
    for gone in ("ink", "oil"):
        rest = table.take(table.domain != table.domains.index(gone))
        refused(rest, f"set has no image of {gone}")
    table = table_of(["ink"] * 2 + ["oil"] * 2, [*"aba", ""])
    refused(table, "oil has 2 images, none left to test on: the others are duplicates", [0, 1, 2, 2], target_labels=1)


def test_the_module_imports_no_torch():
    code = "import sys, transfer.adaptation.domains; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.fixture(scope="module")
def office():
    folder = SHARED / "data" / "office31"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not here")
    table = read_folder(folder)
    sha256 = np.array([hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in table.paths])
    return table, Inspection(sha256, np.zeros(len(table), np.uint64), np.full(len(table), ""))


SIZES = {"amazon": 2817, "dslr": 498, "webcam": 795}


@pytest.mark.parametrize(("source", "target"), list(itertools.permutations(SIZES, 2)))
def test_office31(office, source, target):
    table, inspection = office
    how = {"sources": [source], "target": target}
    made, truth = split_domains(table, inspection, **how)
    assert len(made.train) + len(made.val) == SIZES[source]
    assert len(made.val) == round(0.1 * SIZES[source])
    assert len(made.labelled) == 0
    assert len(made.unlabelled) == len(made.test) == SIZES[target]
    assert made.notes == truth.notes(made.test) == ()
    assert (truth.reveal(made.test) == table.object[made.test]).all()

    made, _ = split_domains(table, inspection, **how, protocol="inductive")
    assert abs(len(made.test) - SIZES[target] / 2) <= 1
    assert len(made.unlabelled) == SIZES[target] - len(made.test)

    made, _ = split_domains(table, inspection, **how, protocol="office", val=0)
    counts = np.bincount(table.object[table.domain == table.domains.index(source)], minlength=31)
    assert (
        np.bincount(table.object[made.train]).tolist() == np.minimum(counts, 20 if source == "amazon" else 8).tolist()
    )
    assert len(made.labelled) == 93
    assert len(made.unlabelled) == SIZES[target] - 93
    copies = np.isin(inspection.sha256[made.unlabelled], inspection.sha256[made.labelled]).sum()
    assert len(made.test) == len(made.unlabelled) - copies


def test_office31_from_two_sources(office):
    table, inspection = office
    made, _ = split_domains(table, inspection, sources=["amazon", "dslr"], target="webcam", target_labels=3)
    assert made.sources == ("amazon", "dslr")
    assert len(made.train) + len(made.val) == 2817 + 498
    assert len(made.labelled) == 93
    assert len(made.test) == 795 - 93
