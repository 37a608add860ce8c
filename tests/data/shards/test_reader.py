import json
from pathlib import Path

import numpy as np
import pytest

from transfer.data.duplicates import inspect_files
from transfer.data.manifests.manifest import NO_OBJECT
from transfer.data.sets.load import load_table
from transfer.data.shards.address import parse_address
from transfer.data.shards.reader import expand_ranges, find_shards, list_members, read_shards
from transfer.disk_cache import DiskCache
from transfer.errors import TransferError


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    monkeypatch.setenv("TRANSFER_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("TRANSFER_DATA", raising=False)


@pytest.fixture
def packed(tree, shard):
    """A folder, and two shards of the same images in the same order."""
    root = tree(*(f"{d}/images/{o}/{i}.png" for d in ("ink", "paint") for o in ("c10", "c9") for i in range(3)))
    files = {str(f.relative_to(root)): f for f in sorted(root.rglob("*.png"))}
    names = list(files)
    for n, some in enumerate((names[:5], names[5:])):
        shard({name: files[name] for name in some}, f"s-{n:02d}.tar")
    return root, root.parent


def same(one, other):
    assert {k: (t.values.tolist(), t.classes) for k, t in one.targets.items()} == {
        k: (t.values.tolist(), t.classes) for k, t in other.targets.items()
    }
    assert (one.split.tolist(), one.group.tolist(), one.notes) == (
        other.split.tolist(),
        other.group.tolist(),
        other.notes,
    )


def test_a_tree_in_shards_is_the_tree(packed, server, tmp_path):
    root, folder = packed
    for tar in folder.glob("*.tar"):
        server.files[f"/{tar.name}"] = tar.read_bytes()
    tree = load_table(str(root))
    seen = inspect_files(tree)
    for n, data in enumerate((f"{folder}/s-{{00..01}}.tar", f"{folder}/s-*.tar", f"{server.url}/s-{{00..01}}.tar")):
        table = load_table(data)
        same(table, tree)
        assert [parse_address(p).name for p in table.paths] == [str(Path(p).relative_to(root)) for p in tree.paths]
        for store in (None, DiskCache(tmp_path / f"store{n}"), DiskCache(tmp_path / f"store{n}")):
            found = inspect_files(table, disk_cache=store)
            assert np.array_equal(found.sha256, seen.sha256)
            assert np.array_equal(found.phash, seen.phash)
            assert not found.bad.any()


def test_what_is_known_is_not_fetched_again(packed, server, tmp_path):
    for tar in packed[1].glob("*.tar"):
        server.files[f"/{tar.name}"] = tar.read_bytes()
    size = sum(map(len, server.files.values()))
    sent = []
    for _ in range(2):
        server.sent = 0
        inspect_files(load_table(f"{server.url}/s-{{00..01}}.tar"), disk_cache=DiskCache(tmp_path / "store"))
        sent.append(server.sent)
    assert size < sent[0] <= 2 * size + 2  # one pass to find them, one to look at them
    assert sent[1] == 2  # are they the same still?


def test_a_folder_of_shards(packed, tmp_path, monkeypatch):
    folder = tmp_path / "shards" / "mine"
    folder.mkdir(parents=True)
    for n, tar in ((9, "s-00.tar"), (10, "s-01.tar")):
        (packed[1] / tar).rename(folder / f"s-{n}.tar")
    (folder / "sizes.json").write_text("{}")
    same(load_table(str(folder)), load_table(str(packed[0])))
    monkeypatch.setenv("TRANSFER_DATA", str(tmp_path / "shards"))
    same(load_table("mine"), load_table(str(packed[0])))
    (folder / "class").mkdir()
    assert find_shards(str(folder)) is None


def test_labels_of_samples(shard, picture, tmp_path):
    jpg = picture(tmp_path / "a.jpg").read_bytes()
    about = {"object": "wren", "domain": "ink", "split": "valid", "group": "g", "age": 3, "wet": True}
    files = {
        "x/1.jpg": jpg,
        "x/1.json": json.dumps(about).encode(),
        "x/2.seg.png": jpg,
        "x/2.jpg": jpg,
        "x/2.cls": b"12",
        "x/2.txt": b"a bird",
        "x/3.jpg": jpg,
        "x/4.jpg": jpg,
        "x/4.json": json.dumps({"object": "owl", "age": 5, "domain": "paint", "wet": False}).encode(),
        "x/4.cls": b"7",
        "x/5.json": b'{"object": "owl"}',
        "x/notes.pdf": b"",
        "x/._1.jpg": b"",
    }
    tar = shard(files)
    table = read_shards([str(tar)], ["age", "wet:softmax", "txt"], name="birds")
    assert [parse_address(p).name for p in table.paths] == ["x/1.jpg", "x/2.jpg", "x/3.jpg", "x/4.jpg"]
    assert table.objects == ("12", "owl", "wren")
    assert table.object.tolist() == [2, 0, -1, 1]
    assert (table.domains, table.domain.tolist()) == (("ink", "paint"), [0, -1, -1, 1])
    assert (table.split.tolist(), table.group.tolist()) == (["val", "", "", ""], ["g", "", "", ""])
    assert table.targets["age"].values.tolist()[::3] == [3.0, 5.0]
    assert table.targets["wet"].classes == ("false", "true")
    assert table.targets["txt"].classes == ("a bird",)
    assert table.notes == (
        f"left out: 1 file, not an image: x/notes.pdf ({tar})",
        f"left out: 1 file, hidden: x/._1.jpg ({tar})",
        f"left out: 1 file, a label without an image: x/5 ({tar})",
        "1 further image of samples ignored, such as masks",
    )
    assert set(table.left_out) == {
        ("x/notes.pdf", "not an image", str(tar)),
        ("x/._1.jpg", "hidden", str(tar)),
        ("x/5", "a label without an image", str(tar)),
        ("x/2.seg.png", "another image of its sample, such as a mask", str(tar)),
    }
    assert table.unlabelled == ((table.paths[2], NO_OBJECT, f"{tar}::x/3.jpg"),)
    assert len(list_members([str(tar)])) == 5


def test_a_list_has_several_labels_and_needs_no_object(shard, picture, tmp_path):
    jpg = picture(tmp_path / "a.jpg").read_bytes()
    lists = {"1": ["red", "round"], "2": [], "3": None, "4": ["red"]}
    files = {f"{key}.json": json.dumps({"tags": labels}).encode() for key, labels in lists.items()}
    tar = shard(files | {f"{key}.jpg": jpg for key in lists})
    table = read_shards([str(tar)], ["tags:multilabel"])
    assert table.targets["tags"].classes == ("red", "round")
    assert table.targets["tags"].values.tolist() == [[1, 1], [0, 0], [-1, -1], [1, 0]]
    assert table.objects == ()


def test_labels_that_cannot_be_read(shard, tmp_path):
    def read(files, *targets):
        return read_shards([str(shard(files))], targets)

    label = b'{"object": "wren", "split": "trian", "age": "old"}'
    with pytest.raises(TransferError, match=r"s.tar::1.jpg: unknown split 'trian' \(did you mean 'train'\?\)"):
        read({"1.jpg": b"", "1.json": label})
    label = label.replace(b"trian", b"train")
    with pytest.raises(TransferError, match=r"s.tar::1.jpg: age is 'old', not a finite number"):
        read({"1.jpg": b"", "1.json": label}, "age:regression")
    with pytest.raises(TransferError, match=r"no column 'agee' in .*s.tar \(did you mean 'age'\?\)"):
        read({"1.jpg": b"", "1.json": label}, "agee")
    with pytest.raises(TransferError, match=r"the sample '1' has two images \('1.jpg', '1.png'\)"):
        read({"1.jpg": b"", "1.png": b"", "1.json": label})
    with pytest.raises(TransferError, match="need a KEY"):
        read({"a/1.jpg": b"", "b/1.jpg": b""}, "age")
    with pytest.raises(TransferError, match=r"no image in .*s.tar: expected KEY.jpg beside KEY.json or KEY.cls"):
        read({"a/1.json": b"{}"})
    with pytest.raises(TransferError, match="images outside any class folder"):
        read({"1.jpg": b"", "2.jpg": b""})


def test_ranges():
    assert expand_ranges("a-{8..10}-{0..1}.tar") == [f"a-{i}-{j}.tar" for i in (8, 9, 10) for j in (0, 1)]
    assert expand_ranges("a-{008..010}.tar") == ["a-008.tar", "a-009.tar", "a-010.tar"]
    assert expand_ranges("a{}.tar") == ["a{}.tar"]
    with pytest.raises(TransferError, match="runs backwards"):
        expand_ranges("a-{9..0}.tar")
    with pytest.raises(TransferError, match="more than 100,000 shards"):
        expand_ranges("a-{0..99999999999}-{0..9}.tar")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("pipe:curl -s http://host/a.tar", "pipe: would run a command"),
        ("ftp://host/a.tar", "from http://, https://, s3://, gs://, az://"),
        ("file:///a.tar", "from http://, https://"),
        ("http://host/a.tar.gz", "is compressed"),
        ("a-{0..9}.tgz", "is compressed"),
        ("http://host/a.zip", "is no tar shard"),
        ("missing-{0..9}.tar", r"no shard .*/missing-0.tar"),
        ("missing-*.tar", r"no shard .*/missing-\*.tar"),
    ],
)
def test_what_is_not_read(data, says):
    with pytest.raises(TransferError, match=says):
        load_table(data)


@pytest.mark.parametrize("data", ["digits", "some/folder", "list.csv"])
def test_what_is_no_shard(data):
    assert find_shards(data) is None


def test_errors_name_the_shard(packed, server):
    with pytest.raises(TransferError, match=rf"cannot read {server.url}/none.tar: HTTP 404"):
        load_table(f"{server.url}/none.tar")
    server.files["/s.tar"] = (packed[1] / "s-00.tar").read_bytes()
    server.ranges = False
    with pytest.raises(TransferError, match=r"cannot read .*/s.tar: the server sends whole files only, no ranges"):
        load_table(f"{server.url}/s.tar")
    server.ranges = True
    table = load_table(f"{server.url}/s.tar")
    server.etag = '"two"'
    with pytest.raises(TransferError, match=r"cannot read 'ink/images/c10/0.png' of .*changed while it was in use"):
        inspect_files(table)


def test_a_bad_image_is_named_by_its_address(shard, tmp_path, picture):
    tar = shard({"a/1.png": picture(tmp_path / "1.png"), "b/2.png": b"no image", "b/3.png": b""})
    table = load_table(str(tar))
    for store in (None, DiskCache(tmp_path / "store")):
        found = inspect_files(table, disk_cache=store)
        assert found.bad.tolist() == [False, True, True]
        assert found.reason[1] == f"bad image {table.paths[1]}: not an image in a known format"
        assert found.reason[2].endswith("the file is empty")


def test_hidden_and_system_folders_of_a_shard_are_left_out_as_on_disk(shard, picture, tmp_path):
    image = picture(tmp_path / "1.png").read_bytes()
    names = ("a/1.png", "b/1.png", ".Trash/old.png", "__MACOSX/a/._1.png", "./a/2.png")
    table = read_shards([str(shard(dict.fromkeys(names, image)))])
    assert (table.objects, len(table)) == (("a", "b"), 3)
    assert [(path, reason) for path, reason, _ in table.left_out] == [
        (".Trash/old.png", "hidden"),
        ("__MACOSX/a/._1.png", "made by an operating system"),
    ]
