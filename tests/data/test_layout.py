import numpy as np
import pytest

from transfer.data.layout import NO_CLASSES, OTHER_LEVEL, OUTSIDE, arrange_images
from transfer.data.table import DEFAULT_DOMAIN
from transfer.errors import TransferError


def arrange(*names, flat_domain=""):
    """Return the table of files with these names."""
    images = [(tuple(name.split("/")[:-1]), name.split("/")[-1]) for name in names]
    digests = np.array([f"digest of {name}" for name in names])
    table = arrange_images(images, names, source="SET", name="set", sha256=digests, flat_domain=flat_domain)
    assert table.sha256.tolist() == [f"digest of {path}" for path in table.paths]
    return table


def read(table):
    """Return domain/class and split by path."""
    labels = zip(table.domain, table.object, table.split, strict=True)
    rows = [(f"{table.domains[d]}/{table.objects[o]}", str(split)) for d, o, split in labels]
    return dict(zip(table.paths.tolist(), rows, strict=True))


def expand(*folders, n=2):
    """Return names of `n` images in each folder."""
    return [f"{folder}/{i}.png" for folder in folders for i in range(n)]


SPLITS = [
    ("train", "test"),
    ("training", "testing"),
    ("Train", "TEST"),
    ("TRAINING", "Hold-Out"),
    ("train_set", "eval"),
]


@pytest.mark.parametrize("splits", SPLITS)
@pytest.mark.parametrize("layout", ["{s}/{c}", "set/{s}/{c}", "a/b/{s}/{c}", "{c}/{s}", "set/{s}/images/{c}"])
def test_splits_of_classes(splits, layout):
    wanted = {}
    for name, split in zip(splits, ("train", "test"), strict=True):
        for label in ("cat", "dog"):
            for file in expand(layout.format(s=name, c=label)):
                wanted[file] = (f"all/{label}", split)
    assert read(arrange(*wanted)) == wanted


@pytest.mark.parametrize("splits", SPLITS)
@pytest.mark.parametrize(
    "layout", ["{s}/{d}/{c}", "{d}/{s}/{c}", "{d}/{c}/{s}", "set/{d}/{s}/{c}", "{d}/{s}/images/{c}"]
)
def test_splits_of_domains(splits, layout):
    wanted = {}
    for name, split in zip(splits, ("train", "test"), strict=True):
        for domain, label in [("ink", "cat"), ("ink", "dog"), ("oil", "cat")]:
            for file in expand(layout.format(s=name, d=domain, c=label)):
                wanted[file] = (f"{domain}/{label}", split)
    assert read(arrange(*wanted)) == wanted


@pytest.mark.parametrize("validation", ["val", "Valid", "validation", "dev"])
def test_a_split_for_validation(validation):
    table = arrange(*expand("train/cat", f"{validation}/cat", "test/cat"))
    assert table.split.tolist() == ["train"] * 2 + ["val"] * 2 + ["test"] * 2


@pytest.mark.parametrize(
    ("folders", "choices"),
    [
        (["train/cat", "Test/cat"], []),
        (["training/cat", "test/cat"], ["splits by the folders on level 1: test is test, training is train"]),
        (
            ["train/cat", "eval/cat", "test/cat"],
            ["splits by the folders on level 1: eval is val, test is test, train is train"],
        ),
        (["ink/train/cat", "ink/test/cat"], ["the folder ink, which holds all others, is neither domain nor class"]),
        (["cat/train", "cat/test", "dog/train"], ["splits by the folders on level 2: test, train"]),
        (["set/ink/cat", "set/oil/cat"], ["the folder set, which holds all others, is neither domain nor class"]),
        (["train", "bus"], ["the folder train is read as a class beside others, not as a split"]),
        (["ink/cat", "oil/cat"], []),
        (["ink/images/cat", "oil/images/cat"], []),
        (["ink/cat"], []),
    ],
)
def test_a_choice_between_readings_is_noted(folders, choices):
    table = arrange(*expand(*folders))
    assert list(table.choices) == choices
    assert table.notes == table.choices


def test_one_domain_keeps_its_name_and_a_deep_single_one_is_unwrapped():
    assert arrange(*expand("ink/cat", "ink/dog")).domains == ("ink",)
    assert arrange(*expand("images/ink/cat", "images/oil/dog")).domains == ("ink", "oil")
    assert arrange(*expand("ink/images/cat", "ink/images/dog")).domains == ("ink",)


@pytest.mark.parametrize("name", ["testing", "test", "eval", "holdout", "dev", "TRAIN"])
def test_a_split_is_never_a_domain(name):
    with pytest.raises(TransferError, match=rf"SET holds splits \({name}\) beside ink, oil: put every image under"):
        arrange(*expand("ink/cat", "oil/cat", f"{name}/cat"))


@pytest.mark.parametrize("others", [["bus"], ["bus", "cat", "dog", "cow", "owl"]])
def test_two_splits_are_never_classes(others):
    with pytest.raises(TransferError, match=r"SET holds splits \(testing, training\) beside bus"):
        arrange(*expand("training", "testing", *others))
    with pytest.raises(TransferError, match=r"SET holds splits \(testing, training\) beside bus"):
        arrange(*expand("ink/training", "ink/testing", *(f"oil/{name}" for name in others)))


@pytest.mark.parametrize(
    ("folders", "strays"),
    [
        (["cat", "dog"], {"logo.png": OUTSIDE}),
        (["cat", "dog"], {"cat/crops/1.png": OTHER_LEVEL}),
        (["ink/cat", "oil/cat"], {"logo.png": OUTSIDE, "ink/logo.png": OTHER_LEVEL}),
        (["ink/cat", "oil/cat"], {"testing/1.png": OTHER_LEVEL}),
        (["train/cat", "test/cat"], {"logo.png": OUTSIDE, "train/overview.png": OUTSIDE, "unlabeled/1.png": OUTSIDE}),
        (["set/train/cat", "set/test/cat"], {"logo.png": OUTSIDE, "set/logo.png": OUTSIDE}),
        (["train/cat", "train/dog"], {f"test/{i}.png": NO_CLASSES for i in range(9)}),
        (["training/ink/cat", "training/oil/cat"], {f"testing/{i}.png": NO_CLASSES for i in range(9)}),
        (["images/cat", "images/dog"], {"images/logo.png": OUTSIDE}),
    ],
)
def test_strays_are_named_and_left_out(folders, strays):
    names = expand(*folders)
    table = arrange(*strays, *names)
    assert table.paths.tolist() == names
    assert {file.path: file.reason for file in table.left_out} == strays
    assert sum("left out: " in note for note in table.notes) == len(set(strays.values()))
    assert set(table.objects) == {folder.split("/")[-1] for folder in folders}
    assert not {"test", "testing", "unlabeled"} & set(table.domains)


@pytest.mark.parametrize("flat", [1, 9])
@pytest.mark.parametrize("root", ["", "set/", "train/"])
def test_a_domain_without_class_folders_has_unknown_classes_if_it_is_named(root, flat):
    classes = expand(f"{root}ink/cat", f"{root}ink/dog")
    street = expand(f"{root}street", n=flat)
    table = arrange(*classes, *street, flat_domain="street")
    assert table.domains == ("ink", "street")
    assert table.objects == ("cat", "dog")
    assert (table.object < 0).tolist() == [False] * 4 + [True] * flat == (table.domain == 1).tolist()
    assert not table.left_out
    assert "the images of street lie in no class folder: their labels are unknown" in table.choices


@pytest.mark.parametrize(
    "names",
    [
        [*expand("ink/cat", "ink/dog", "street/cat"), "street/1.png"],  # it has class folders too
        [*expand("cat", "dog", "street")],  # it is a class
        [*expand("ink/cat", "ink/dog"), "logo.png"],  # it is absent
    ],
)
def test_a_domain_that_may_be_flat_changes_nothing_else(names):
    table, plain = arrange(*names, flat_domain="street"), arrange(*names)
    assert read(table) == read(plain)
    assert (table.notes, table.left_out) == (plain.notes, plain.left_out)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["cat/1.png", "ink/dog/2.png"], "mixed depths ('cat/1.png' and 'ink/dog/2.png')"),
        ([*expand("cat"), "1.png", "2.png"], "mixed depths ('1.png' and 'cat/0.png')"),
        ([*expand("ink/cat"), *expand("street")], "a folder of images without labels by --target-images"),
        (["1.png"], "outside any class folder ('1.png')"),
        (["train/1.png", "test/2.png"], "outside any class folder"),
        (["a/b/c/1.png", "d/b/c/1.png"], "3 levels deep ('a/b/c/1.png')"),
        (["train/cat/1.png", "extra/cat/2.png"], "splits (train) beside extra"),
        ([*expand("test/cat", "test/dog"), "train/1.png"], "mixed depths ('train/1.png' and 'test/cat/0.png')"),
        ([*expand("train/cat", "test/cat"), *expand("unlabeled", n=9)], "splits (test, train) beside unlabeled"),
    ],
)
def test_what_cannot_be_read_is_one_clear_line(names, words):
    with pytest.raises(TransferError) as error:
        arrange(*names)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_the_root_may_hold_all_images_where_that_is_allowed():
    with pytest.raises(TransferError, match="outside any class folder"):
        arrange("1.png", "2.png")
    table = arrange("1.png", "2.png", flat_domain=DEFAULT_DOMAIN)
    assert table.objects == ()
    assert table.object.tolist() == [-1, -1]
    assert table.domains == (DEFAULT_DOMAIN,)
