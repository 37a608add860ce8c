from pathlib import Path

import pytest

from transfer.data.sets import load, office31
from transfer.data.sets.load import fetch_or_verify, is_available, load_available, load_table
from transfer.errors import TransferError

SHARED = Path(__file__).parents[4] / "shared"


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    monkeypatch.setenv("TRANSFER_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("TRANSFER_DATA", raising=False)


@pytest.fixture
def office(tree):
    return tree(
        *(f"office31/{d}/images/{o}/frame_0001.jpg" for d in office31.OFFICE31_DOMAINS for o in ("bike", "mug"))
    )


def test_a_folder_and_a_manifest(tree):
    root = tree("cat/1.png", "dog/2.png")
    assert load_table(str(root)).objects == ("cat", "dog")
    (root / "list.csv").write_text("path,object,age\ncat/1.png,a,3\n")
    assert set(load_table(str(root / "list.csv"), targets=["age"]).targets) == {"object", "domain", "age"}


def test_labels_and_how_choices_are_logged(tree, shard, caplog):
    root = tree("cam1/1.png", "cam2/2.png")
    (root / "list.csv").write_text("path,object\ncam1/1.png,a\ncam2/2.png,b\n")
    with caplog.at_level("INFO", "transfer"):
        assert load_table(str(root)).objects == ("a", "b")
        assert load_table(str(root), labels="folders").objects == ("cam1", "cam2")
    assert caplog.messages == ["list.csv names the labels, not the folders cam1, cam2 (--labels folders reads these)"]
    with pytest.raises(TransferError, match=r"--labels: the shards of .* have their labels themselves"):
        load_table(str(shard({"a/1.png": root / "cam1" / "1.png"})), labels="folders")


def test_a_named_set_is_found_by_its_root(office, monkeypatch):
    table = load_table("office31", office)
    assert (table.name, table.domains, table.objects) == ("office31", office31.OFFICE31_DOMAINS, ("bike", "mug"))
    monkeypatch.setenv("TRANSFER_DATA", str(office))
    assert len(load_table("office31")) == 6


def test_what_is_at_hand(office, monkeypatch):
    assert is_available("digits")
    assert not is_available("office31")
    assert is_available("office31", office)
    monkeypatch.setenv("TRANSFER_DATA", str(office))
    assert is_available("office31")
    (office / "office31" / "webcam").rename(office / "elsewhere")
    assert not is_available("office31")
    assert not is_available("cifar")


def test_a_folder_below_the_root(tree, monkeypatch, tmp_path):
    root = tree("mine/a/1.png", "mine/b/2.png", "mine/b/3.png")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TransferError, match="no data set or folder 'mine'"):
        load_table("mine")
    assert len(load_table("mine", root)) == 3
    monkeypatch.setenv("TRANSFER_DATA", str(root))
    assert len(load_table("mine")) == 3
    with pytest.raises(TransferError, match="no data set or folder 'other'"):
        load_table("other")


def test_digits_are_built():
    pytest.importorskip("transfer.data.sets.digits")
    table = load_table("digits")
    assert table.name == "digits"
    assert (len(table.objects), len(table.domains)) == (10, 3)
    assert fetch_or_verify("digits").startswith(f"digits: {len(table):,} images in ")


def test_an_unknown_name():
    with pytest.raises(TransferError, match=r"no data set or folder 'ofice31' \(did you mean 'office31'\?\)"):
        load_table("ofice31")


def test_a_path_that_is_nearly_there(tree, monkeypatch):
    root = tree("my pictures/a/1.png")
    for name in ("labels.csv", "notes.md"):
        (root / name).touch()
    monkeypatch.chdir(root)
    with pytest.raises(TransferError, match=r"folder 'my_pictures' \(did you mean 'my pictures'\?\)"):
        load_table("my_pictures")
    with pytest.raises(TransferError, match=r"\(did you mean 'labels.csv'\?\)"):
        load_table(f"{root}/label.csv")
    with pytest.raises(TransferError, match=r"folder 'notes.mdx': give"):
        load_table("notes.mdx")


def test_verifying_prints_each_difference(office, monkeypatch, capsys):
    with pytest.raises(
        TransferError, match=r"differs from the published Office-31: 4104 missing: amazon/.*; 6 altered: "
    ):
        fetch_or_verify("office31", office, verify=True)
    lines = capsys.readouterr().out.splitlines()
    assert "missing amazon/images/back_pack/frame_0001.jpg" in lines
    assert "altered dslr/images/mug/frame_0001.jpg" in lines
    assert len(lines) == 4110
    with pytest.raises(TransferError, match="was not found"):
        fetch_or_verify("office31", verify=True)


def test_fetching_goes_to_the_root_and_a_whole_copy_is_left(office, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(load.office31, "fetch_office31", lambda place: asked.append(place) or place)
    assert fetch_or_verify("office31", tmp_path / "new").startswith("office31: all 4,110 files in ")
    fetch_or_verify("office31", office)
    fetch_or_verify("office31", office / "office31")
    fetch_or_verify("office31")
    assert asked == [
        tmp_path / "new" / "office31",
        office / "office31",
        office / "office31",
        tmp_path / "cache" / "data" / "office31",
    ]


def test_the_real_set():
    if not (SHARED / "data" / "office31").is_dir():
        pytest.skip(f"{SHARED / 'data' / 'office31'} was not found")
    assert "all 4,110 files" in fetch_or_verify("office31", SHARED / "data", verify=True)
    assert len(load_table("office31", SHARED / "data")) == 4110


def test_further_columns_that_the_data_lacks_are_left_out_by_name(tree):
    root = tree("a/1.png", "b/2.png")
    table = load_available(str(root), None, ["tags:multilabel", "age:regression"])
    assert table.targets.keys() == {"object", "domain"}
    assert table.notes[-1] == "these images have no labels of tags, age"
    (root / "list.csv").write_text("path,object,tags,age\na/1.png,a,,1\nb/2.png,b,,2\n")
    table = load_available(str(root / "list.csv"), None, ["tags:multilabel", "age:regression", "size"])
    assert table.targets.keys() == {"object", "domain", "age"}
    assert table.notes[-1] == "these images have no labels of tags, size"
    assert load_available(str(root / "list.csv"), None, ["age:regression"]).notes == ()
    (root / "list.csv").write_text("path,object,age\na/1.png,a,old\nb/2.png,b,2\n")
    with pytest.raises(TransferError, match="not a finite number"):
        load_available(str(root / "list.csv"), None, ["age:regression"])
