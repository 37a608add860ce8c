import contextlib
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transfer.data.manifests.manifest import (
    NO_LABELS,
    NO_OBJECT,
    find_manifest_fault,
    is_manifest,
    is_similar_to_manifest,
    read_manifest,
    read_manifests,
)
from transfer.errors import TransferError


@pytest.fixture
def manifest(tmp_path):
    for i in range(4):
        (tmp_path / f"{i}.png").touch()

    def write(text):
        file = tmp_path / "list.csv"
        file.write_text(text, encoding="utf-8-sig")
        return file

    return write


def test_all_columns(manifest, tmp_path):
    table = read_manifest(
        manifest(
            "Path, object ,domain,split,group,age\n"
            "0.png,cat,ink,train,g,1.5\n"
            "\n"
            "1.png,,oil,Validation,,\n"
            '2.png,"a, b",,,g,-3\n'
        ),
        ["age"],
    )
    assert table.paths.tolist() == [str(tmp_path / f"{i}.png") for i in range(3)]
    assert table.objects == ("a, b", "cat")
    assert table.object.tolist() == [1, -1, 0]
    assert table.domains == ("ink", "oil")
    assert table.domain.tolist() == [0, 1, -1]
    assert table.split.tolist() == ["train", "val", ""]
    assert table.group.tolist() == ["g", "", "g"]
    assert table.targets["age"].kind == "regression"
    np.testing.assert_array_equal(table.targets["age"].values, [1.5, np.nan, -3])


@pytest.mark.parametrize("text", ["path,object\n0.png,a\n", "path,object,domain\n0.png,a,\n"])
def test_without_domains_there_is_one(manifest, text):
    table = read_manifest(manifest(text))
    assert table.domains == ("all",)
    assert table.domain.tolist() == [0]


@pytest.mark.parametrize(
    ("cells", "spec", "kind", "classes", "values"),
    [
        (["0", "1", ""], "t", "binary", ("0", "1"), [0, 1, -1]),
        (["Yes", "no", "no"], "t", "binary", ("no", "yes"), [1, 0, 0]),
        (["TRUE", "", "TRUE"], "t", "binary", ("false", "true"), [1, -1, 1]),
        (["0", "2", "10"], "t", "regression", (), [0, 2, 10]),
        (["0", "2", "10"], "t:softmax", "softmax", ("0", "2", "10"), [0, 1, 2]),
        (["0", "1", "1"], "t:regression", "regression", (), [0, 1, 1]),
        (["red", "blue", ""], "t", "softmax", ("blue", "red"), [1, 0, -1]),
        (["red", "blue", ""], "t:binary", "binary", ("blue", "red"), [1, 0, -1]),
        (["1", "yes", "no"], "t", "softmax", ("1", "no", "yes"), [0, 2, 1]),
    ],
)
def test_kinds(manifest, cells, spec, kind, classes, values):
    lines = "".join(f"{i}.png,a,{cell}\n" for i, cell in enumerate(cells))
    target = read_manifest(manifest("path,object,t\n" + lines), [spec]).targets["t"]
    assert (target.kind, target.classes, target.values.tolist()) == (kind, classes, values)
    assert target.values.dtype == (np.float64 if kind == "regression" else np.int64)


def test_labels_need_no_object(manifest):
    table = read_manifest(manifest("path,tags\n0.png,red|round\n1.png,\n2.png,none\n"), ["tags"])
    assert table.targets["tags"].values.tolist() == [[1, 1], [-1, -1], [0, 0]]
    assert table.objects == ()
    assert [(each.where, each.reason) for each in table.unlabelled] == [("list.csv line 3", NO_LABELS)]
    assert table.choices == (
        "tags: 2 labels separated by '|', 1.0 an image; 1 image has none of them; 1 is unlabelled",
    )


def test_other_separators_of_labels_need_the_kind(manifest):
    file = manifest('path,object,tags\n0.png,a,"red,round"\n1.png,b,red\n')
    assert read_manifest(file, ["tags"]).targets["tags"].kind == "softmax"
    assert read_manifest(file, ["tags:multilabel"]).targets["tags"].classes == ("red", "round")
    file = manifest("path;tags\n0.png;red, dark|round\n1.png;\n")
    assert read_manifest(file, ["tags"]).targets["tags"].classes == ("red, dark", "round")


def test_a_column_that_would_be_the_object_may_be_a_target(manifest):
    table = read_manifest(manifest("path,label\n0.png,red|round\n1.png,red\n"), ["label"])
    assert (table.objects, table.targets["label"].classes) == ((), ("red", "round"))


def test_objects_with_bars_are_classes_and_said(manifest):
    table = read_manifest(manifest("path,object\n0.png,red|round\n1.png,red\n"))
    assert table.objects == ("red", "red|round")
    assert "1 objects contain '|' (red|round), and each is read as one class" in table.choices[0]


def test_without_objects_a_target_has_classes(manifest):
    with pytest.raises(
        TransferError, match=r"list.csv has neither a column 'object' nor, by --targets, another one with"
    ):
        read_manifest(manifest("path,age\n0.png,3\n"), ["age"])
    with pytest.raises(TransferError, match=r"has no column 'object'.*; or name the columns to predict by --targets"):
        read_manifest(manifest("path,tags\n0.png,a|b\n"))


def test_a_column_may_have_a_colon_in_its_name(manifest):
    table = read_manifest(manifest("path,object,a:b\n0.png,x,3\n"), ["a:b"])
    assert table.targets["a:b"].kind == "regression"


@pytest.mark.parametrize(
    ("text", "targets", "words"),
    [
        ("path,object\n9.png,a\n", [], ["list.csv line 2: no file", "9.png", "--on-bad-image skip"]),
        ("path,object\n0.png,a\n\n,a\n", [], ["line 4: the path is empty"]),
        ("path,object\n0.png,a,b\n", [], ["line 2: 3 cells, but the header has 2"]),
        ("path,sort\n0.png,a\n", [], ["no column 'object'", "class or label or category"]),
        ("path,class,label\n0.png,a,b\n", [], ["'class' and 'label'", "could be the object", "rename one"]),
        ("Image,file,object\n0.png,0.png,b\n", [], ["'Image' and 'file'", "could be the path"]),
        ("pth,object\n0.png,a\n", [], ["no column 'path' (did you mean 'pth'?)"]),
        ("path,object,object\n0.png,a,b\n", [], ["'object' more than once"]),
        ("path,object\n", [], ["no image in"]),
        ("path,object,split\n0.png,a,trian\n", [], ["line 2: unknown split 'trian' (did you mean 'train'?)"]),
        ("path,object,colour\n0.png,a,red\n", ["color"], ["no column 'color'", "did you mean 'colour'?"]),
        ("path,object,age\n0.png,a,3\n", ["age:regresion"], ["unknown kind 'regresion'", "'regression'?"]),
        ("path,object,age\n0.png,a,old\n", ["age:regression"], ["line 2: age is 'old', not a finite number"]),
        ("path,object,age\n0.png,a,inf\n", ["age:regression"], ["not a finite number"]),
        ("path,object,age\n0.png,a,\n", ["age"], ["'age' has no value at all"]),
        ("path,object,t\n0.png,a,3\n", ["t:binary"], ["not binary: it has 1 different values"]),
        ("path,object\n0.png,a\n", ["object"], ["'object' is not a further target"]),
        ('path,object\n0.png,"a\n', [], ["cannot read", "list.csv"]),
    ],
)
def test_errors_name_the_place(manifest, text, targets, words):
    with pytest.raises(TransferError) as error:
        read_manifest(manifest(text), targets)
    for word in words:
        assert word in str(error.value)
    assert "\n" not in str(error.value)


def test_bad_rows_are_left_out_by_line_path_and_reason(manifest):
    text = "path,object,age\n0.png,a,1\n9.png,a,2\n,b,3\n1.png,b\n\n1.png,,4\n1.png,b,5\n"
    table = read_manifest(manifest(text), ["age:regression"], skip_bad=True)
    assert [Path(path).name for path in table.paths] == ["0.png", "1.png", "1.png"]
    assert table.object.tolist() == [0, -1, 1]
    assert table.targets["age"].values.tolist() == [1, 4, 5]
    assert set(table.left_out) == {
        ("1.png", "2 cells, but the header has 3", "list.csv line 5"),
        ("9.png", "no file at this path", "list.csv line 3"),
        ("", "the path is empty", "list.csv line 4"),
    }
    assert table.unlabelled == ((table.paths[1], NO_OBJECT, "list.csv line 7"),)
    (note,) = table.notes
    assert note.startswith("3 rows skipped: ")
    assert "list.csv line 3 (no file at this path)" in note


def test_the_first_bad_row_is_named_whatever_is_wrong_with_it(manifest):
    for text, line in (("9.png,a\n1.png\n", 2), ("1.png\n9.png,a\n", 2), ("0.png,a\n1.png\n9.png,a\n", 3)):
        with pytest.raises(TransferError, match=rf"list.csv line {line}: .* skip such rows with --on-bad-image skip"):
            read_manifest(manifest("path,object\n" + text))
    with pytest.raises(TransferError, match=r"line 2: no file .*9.png \(all rows are bad\)"):
        read_manifest(manifest("path,object\n9.png,a\n"), skip_bad=True)


def test_latin_1_is_read_and_said(tmp_path):
    (tmp_path / "Bär.png").touch()
    file = tmp_path / "list.csv"
    file.write_bytes("path,object\nBär.png,Bär\n".encode("latin-1"))
    table = read_manifest(file)
    assert table.objects == ("Bär",)
    assert table.choices == ("list.csv is not UTF-8: read as Windows-1252 (Latin-1)",)


def test_the_usual_names_of_splits(manifest):
    table = read_manifest(manifest("path,object,split\n0.png,a,TRAIN\n1.png,a,dev\n2.png,a,Testing\n3.png,a,\n"))
    assert table.split.tolist() == ["train", "val", "test", ""]
    assert table.choices == ("list.csv: of the splits, TRAIN is train, dev is val, Testing is test",)


@pytest.mark.parametrize("name", ["data set", "subset", "Partition"])
def test_a_column_of_splits_by_another_name(manifest, name):
    text = f"path,object,{name},x\n0.png,a,train,\n1.png,a,test,train\n2.png,a,,cat\n"
    table = read_manifest(manifest(text))
    assert table.split.tolist() == ["train", "test", ""]
    assert table.choices == (f"list.csv: column {name!r} is the split, as it names nothing else",)
    assert read_manifest(manifest(text), [name]).split.tolist() == [""] * 3  # it is asked for as a target
    assert read_manifest(manifest(text.replace("test", "train"))).split.tolist() == [""] * 3  # train alone
    with pytest.raises(TransferError, match=r"columns .* and 'x' of splits: call one 'split'"):
        read_manifest(manifest(text.replace("cat", "test")))


@pytest.mark.parametrize("names", [("train", "test"), ("Training", "hold-out")])
@pytest.mark.parametrize("form", ["{}/{}", "images/{}/{}"])
def test_splits_by_the_folders_of_the_paths(tmp_path, names, form):
    rows, file = [], tmp_path / "list.csv"
    for i, name in enumerate((*names, names[0])):
        rows.append(f"{form.format(name, i)}.png,{'ab'[i % 2]}")
        image = tmp_path / rows[-1].partition(",")[0]
        image.parent.mkdir(parents=True, exist_ok=True)
        image.touch()
    file.write_text("\n".join(["path,object", *rows]))
    table = read_manifest(file)
    assert table.split.tolist() == ["train", "test", "train"]
    assert "list.csv: splits by the folders of its paths: " in table.choices[0]
    file.write_text("\n".join(["path,object,split", *(f"{row},train" for row in rows)]))
    assert read_manifest(file).split.tolist() == ["train"] * 3
    (tmp_path / "3.png").touch()
    file.write_text("\n".join(["path,object", *rows, "3.png,a"]))
    assert read_manifest(file).split.tolist() == [""] * 4


def test_a_file_for_each_split(manifest, tmp_path):
    manifest("path,object,age\n0.png,a,3\n1.png,b,4\n")
    (tmp_path / "test.csv").write_text("label;file\nc;2.png\n")
    files = {tmp_path / "list.csv": "train", tmp_path / "test.csv": "test"}
    table = read_manifests(files, ["age"], name="both")
    assert (table.name, [path[-5:] for path in table.paths]) == ("both", ["0.png", "1.png", "2.png"])
    assert (table.objects, table.object.tolist()) == (("a", "b", "c"), [0, 1, 2])
    assert table.split.tolist() == ["train", "train", "test"]
    np.testing.assert_array_equal(table.targets["age"].values, [3, 4, np.nan])
    (tmp_path / "test.csv").write_text("label;file\nc;9.png\n")
    with pytest.raises(TransferError, match=r"test\.csv line 2: no file"):
        read_manifests(files, name="both")


def test_with_path_column(manifest, tmp_path):
    assert is_manifest(manifest("object, PATH\n"))
    assert is_manifest(manifest("object; PATH\n"))
    assert not is_manifest(manifest("object,file\n"))
    assert not is_manifest(tmp_path / "none.csv")
    (tmp_path / "notes.txt").write_text("path\n")
    assert not is_manifest(tmp_path / "notes.txt")
    (tmp_path / "notes.txt").write_text("path object\n")
    assert is_manifest(tmp_path / "notes.txt")


def test_columns_of_other_tools_are_similar(manifest, tmp_path):
    assert is_similar_to_manifest(manifest("object,file\n"))
    assert is_similar_to_manifest(manifest("Filename\tLabel\n"))
    assert not is_similar_to_manifest(manifest("filename,width\n"))
    assert not is_similar_to_manifest(manifest("label,width\n"))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("file,class\n0.png,a\n", ""),
        ("file,class\n9.png,a\n", "no file"),
        ("file,class\n9.png,a\n0.png,a\n1.png,a\n", ""),
        ("file,class\n9.png,a\n0.png,a\n", "no file"),
        ("file,class\n,a\n", "names no file"),
        ("file,class,label\n0.png,a,b\n", "rename one"),
    ],
)
def test_fault_of_a_similar_file(manifest, text, fault):
    found = find_manifest_fault(manifest(text))
    assert fault in found
    assert bool(fault) == bool(found)


def test_renamed_columns_are_noted_and_the_given_name_has_precedence(manifest):
    table = read_manifest(manifest("Filename,label,age\n0.png,cat,3\n1.png,dog,4\n"), ["age"])
    assert table.objects == ("cat", "dog")
    assert table.notes == (
        "list.csv: column 'Filename' is the path",
        "list.csv: column 'label' is the object",
    )
    table = read_manifest(manifest("path,object,label\n0.png,cat,x\n1.png,dog,y\n"), ["label"])
    assert table.objects == ("cat", "dog")
    assert table.targets["label"].classes == ("x", "y")
    assert table.notes == ()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_is_no_manifest_and_is_not_waited_for(tmp_path):
    """Found by fuzzing."""
    os.mkfifo(tmp_path / "x.csv")
    assert not is_manifest(tmp_path / "x.csv")
    with pytest.raises(TransferError, match="not a regular file"):
        read_manifest(tmp_path / "x.csv")


CELLS = st.sampled_from(
    ["path", "object", "Object", "a.png", "", "\0", "\ufeff", '"', "\r", "9" * 5000, "nan", "1e999", "é"]
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(CELLS, max_size=4), max_size=4), st.sampled_from(["utf-8", "utf-16", "latin-1"]))
def test_any_bytes_are_a_table_or_one_line(tmp_path_factory, lines, encoding):
    folder = tmp_path_factory.mktemp("any")
    (folder / "a.png").touch()
    text = "path,object\na.png,a\n" * (len(lines) % 2) + "\n".join(map(",".join, lines))
    (folder / "m.csv").write_bytes(text.encode(encoding, "replace"))
    with contextlib.suppress(TransferError):
        assert len(read_manifest(folder / "m.csv")) > 0
