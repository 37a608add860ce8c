"""Invariants of a pair on random sets: who is where, what is masked, and that no label of the target matters."""

from dataclasses import fields, replace

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from transfer.adaptation.domains import Domains, split_domains
from transfer.data.duplicates import Inspection
from transfer.data.table import ImageTable, Target, make_softmax_target
from transfer.errors import TransferError

ROWS = ("train", "val", "labelled", "unlabelled", "test")
PROTOCOLS = ("transductive", "inductive", "office")


def table_of(domain, obj, split=None, group=None, **further):
    """Return a table from names, ``""`` for unknown objects."""
    n = len(obj)
    targets = {"object": make_softmax_target(obj), "domain": make_softmax_target(domain)}
    empty = np.full(n, "", dtype="<U8")
    return ImageTable(
        np.array([f"/{i}" for i in range(n)], dtype=str),
        targets | further,
        empty if split is None else np.array(split, dtype="<U8"),
        empty if group is None else np.array(group, dtype="<U8"),
        "set",
    )


def seen(contents):
    """Return an inspection of files with these contents."""
    n = len(contents)
    return Inspection(np.array([str(c) for c in contents]), np.zeros(n, np.uint64), np.full(n, ""))


def said(table, inspection, **options):
    """Return all that a pair is made of, in a form that can be compared; or the error that was raised."""
    try:
        made, _ = split_domains(table, inspection, **options)
    except TransferError as error:
        return str(error)
    out = {f.name: getattr(made, f.name) for f in fields(Domains)}
    out |= {name: out[name].tolist() for name in ROWS}
    whole = out.pop("table")
    for name, target in whole.targets.items():
        out[f"table {name}"] = target.kind, target.classes, np.nan_to_num(target.values, nan=-9.0).tolist()
    out["table"] = whole.paths.tolist(), whole.split.tolist(), whole.group.tolist(), whole.name, whole.notes
    return out


def relabelled(table, names):
    """Return `table` as it would be read had its objects these names."""
    return replace(table, targets=table.targets | {"object": make_softmax_target(names)})


def names_of(table):
    return [table.objects[i] if i >= 0 else "" for i in table.object]


@st.composite
def sets(draw):
    n = draw(st.integers(6, 70))

    def column(choices):
        return draw(st.lists(st.sampled_from(choices), min_size=n, max_size=n))

    domain = column(["ink", "ink", "oil", "oil", "wax", ""])
    assume({"ink", "oil"} <= set(domain))
    hue = make_softmax_target(column(["red", "blue", ""]))
    age = Target(np.array(column([1.0, 2.0, np.nan])), "regression")
    group = column(["", "", "", "g1", "g2"])
    split = column(draw(st.sampled_from([[""], ["train", "test", "val"]])))
    table = table_of(domain, column(["a", "b", "c", "d", "e", ""]), split, group, hue=hue, age=age)
    return table, seen(column(list(range(2 * n))))


options = st.fixed_dictionaries(
    {
        "sources": st.sampled_from([("ink",), ("ink", "wax"), ("ink", "ink")]),
        "target": st.just("oil"),
        "protocol": st.sampled_from(PROTOCOLS),
        "target_labels": st.integers(0, 3),
        "val": st.sampled_from([0, 0.1, 0.4]),
        "test": st.sampled_from([0.2, 0.5]),
        "seed": st.integers(0, 3),
    }
)


@settings(deadline=None)
@given(sets(), options)
def test_laws(images, how):
    table, inspection = images
    try:
        made, truth = split_domains(table, inspection, **how)
    except TransferError:
        return
    train, val, labelled, unlabelled, test = parts = [getattr(made, name) for name in ROWS]
    for part in parts:
        assert part.dtype == np.int64
        assert (np.diff(part) > 0).all()
    apart = np.concatenate([train, val, labelled, unlabelled])
    assert len(set(apart.tolist())) == len(apart)
    assert not set(test) & set(labelled)
    assert len(unlabelled)
    assert len(test)
    from_source = np.concatenate([train, val])
    assert {table.domains[i] for i in table.domain[from_source]} <= set(how["sources"])
    assert {table.domains[i] for i in table.domain[np.concatenate([labelled, unlabelled, test])]} == {"oil"}
    target = set(np.flatnonzero(table.domain == table.domains.index("oil")))
    if how["protocol"] == "inductive":
        assert not set(test) & set(unlabelled)
        for key in (inspection.sha256, table.group):
            assert not (set(key[test]) - {""}) & (set(key[np.concatenate([labelled, unlabelled])]) - {""})
    else:
        assert set(test) <= set(unlabelled)
        assert set(labelled) | set(unlabelled) == target
        if not len(labelled):
            assert set(test) == target
    for key in (inspection.sha256, table.group):
        for one, other in ((train, val), (labelled, test)):
            assert not (set(key[one]) - {""}) & (set(key[other]) - {""})
    assert set(table.object[val]) <= set(table.object[train])

    known = np.zeros(len(table), bool)
    known[np.concatenate([from_source, labelled])] = True
    names = names_of(table)
    assert [n if k else "" for n, k in zip(names, known, strict=True)] == names_of(made.table)
    assert set(made.table.objects) == {n for n, k in zip(names, known, strict=True) if k}
    for name in ("hue", "age"):
        assert not (made.table.targets[name].known & ~np.isin(np.arange(len(table)), from_source)).any()
    assert made.table.domain.tolist() == table.domain.tolist()
    of_test = [truth.classes[i] if i >= 0 else "" for i in truth.reveal(test)]
    drawn = how["target_labels"] or how["protocol"] == "office"
    alike = {names[row] for row in from_source} & {names[row] for row in target}
    assert of_test == [names[row] if drawn or alike else "" for row in test]  # no class in common: names of no class
    assert truth.classes[: len(made.table.objects)] == made.table.objects
    assert said(table, inspection, **how) == said(table, inspection, **how)


@settings(deadline=None)
@given(sets(), options, st.randoms(use_true_random=False))
def test_no_target_label_is_used(images, how, random):
    table, inspection = images
    how["protocol"] = "transductive" if how["protocol"] == "office" else how["protocol"]
    how["target_labels"] = 0
    names = names_of(table)
    mine = [i for i, d in enumerate(table.domain) if d >= 0 and table.domains[d] == "oil"]
    deleted, shuffled, others = list(names), list(names), list(names)
    moved = [names[i] for i in mine]
    random.shuffle(moved)
    for i, name in zip(mine, moved, strict=True):
        deleted[i], shuffled[i], others[i] = "", name, random.choice(["A", "a", "c", "zebra"])
    as_it_is = said(table, inspection, **how)
    for changed in (deleted, shuffled, others):
        assert said(relabelled(table, changed), inspection, **how) == as_it_is


@settings(deadline=None)
@given(sets(), options)
def test_target_labels_matter_only_through_the_drawn_ones(images, how):
    table, inspection = images
    how["target_labels"] = how["target_labels"] or 2
    as_it_is = said(table, inspection, **how)
    assume(not isinstance(as_it_is, str))
    names = names_of(table)
    for i in range(len(table)):
        if table.domain[i] == table.domains.index("oil") and i not in as_it_is["labelled"]:
            names[i] = ""
    assert said(relabelled(table, names), inspection, **how) == as_it_is
