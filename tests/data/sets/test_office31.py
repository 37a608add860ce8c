import hashlib
import io
import re
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from transfer.data.sets import office31 as module
from transfer.data.sets.office31 import fetch_office31, find_office31, read_checksums, verify_files
from transfer.errors import TransferError

SHARED = Path(__file__).parents[4] / "shared"
FILES = {
    f"{domain}/images/{name}/frame_000{i}.jpg": f"{domain}{name}{i}".encode()
    for domain in ("amazon", "dslr", "webcam")
    for name in ("bike", "mug")
    for i in (1, 2)
}
EXPECTED = {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()}


def as_zip(files, top="DDC-transfer-learning-9090/data/Office31/"):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("DDC-transfer-learning-9090/README.md", "code")
        for name, content in files.items():
            archive.writestr(top + name, content)
    return stream.getvalue()


def as_tar(files):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo("./" + name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


@pytest.fixture
def copy(tmp_path):
    folder = tmp_path / "office31"
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    monkeypatch.setenv("TRANSFER_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("TRANSFER_DATA", raising=False)


def test_the_manifest_is_of_the_whole_set():
    shipped = read_checksums()
    assert list(shipped) == sorted(shipped)
    assert Counter(name.split("/")[0] for name in shipped) == {"amazon": 2817, "dslr": 498, "webcam": 795}
    assert len({name.split("/")[2] for name in shipped}) == 31
    assert all(re.fullmatch(r"\w+/images/\w+/frame_\d{4}\.jpg", name) for name in shipped)
    assert all(re.fullmatch(r"[0-9a-f]{64}", digest) for digest in shipped.values())
    assert all(module._keep(f"top/Data/OFFICE31/{name}") == name for name in shipped)
    copies = {digest: n for digest, n in Counter(shipped.values()).items() if n > 1}
    assert (len(copies), sum(copies.values())) == (49, 120)
    homes = {digest: {name.rsplit("/", 1)[0] for name, d in shipped.items() if d == digest} for digest in copies}
    assert all(len(home) == 1 and next(iter(home)).startswith("amazon/") for home in homes.values())


@pytest.mark.parametrize("given", ["parent", "itself", "environment", "cache"])
def test_a_copy_is_used_in_place(copy, tmp_path, monkeypatch, given):
    root = {"parent": tmp_path, "itself": copy}.get(given)
    if given == "environment":
        monkeypatch.setenv("TRANSFER_DATA", str(tmp_path))
    if given == "cache":
        (tmp_path / "cache" / "data").mkdir(parents=True)
        copy = copy.rename(tmp_path / "cache" / "data" / "office31")
    assert find_office31(root) == copy


def test_without_a_copy_the_error_says_what_to_do(tmp_path):
    with pytest.raises(TransferError) as error:
        find_office31(tmp_path)
    for word in (str(tmp_path / "office31"), str(tmp_path / "cache"), "`transfer data office31`", "--data-root"):
        assert word in str(error.value)


def test_verify_names_every_difference(copy):
    assert verify_files(copy, EXPECTED).ok
    (copy / "dslr/images/mug/frame_0001.jpg").unlink()
    (copy / "dslr/images/mug/frame_0002.jpg").write_bytes(b"altered")
    (copy / "amazon/images/mug/frame_0099.jpg").write_bytes(b"new")
    (copy / "amazon/images/mug/copy.jpg").write_bytes(FILES["amazon/images/bike/frame_0001.jpg"])
    (copy / ".DS_Store").touch()
    found = verify_files(copy, EXPECTED, workers=3)
    assert not found.ok
    assert found.missing == ("dslr/images/mug/frame_0001.jpg",)
    assert found.altered == ("dslr/images/mug/frame_0002.jpg",)
    assert found.extra == ("amazon/images/mug/frame_0099.jpg",)
    assert found.duplicate == ("amazon/images/mug/copy.jpg",)
    assert str(found).startswith("1 missing: dslr/images/mug/frame_0001.jpg; 1 altered: ")
    assert found.lines()[-1] == "duplicate amazon/images/mug/copy.jpg"


@pytest.mark.parametrize("archive", [as_zip(FILES), as_tar(FILES), as_zip(FILES, "x/DATA/Office31/")])
def test_fetching(server, tmp_path, archive):
    server.files["/set"] = archive
    server.cut_after = [len(archive) // 2]
    folder = fetch_office31(tmp_path / "data" / "office31", [server.url + "/set"], EXPECTED)
    assert verify_files(folder, EXPECTED).ok
    assert [p.name for p in folder.parent.iterdir()] == ["office31"]
    server.asked = []
    assert fetch_office31(folder, [server.url + "/set"], EXPECTED) == folder
    assert server.asked == []


def test_names_in_capitals_are_the_same_set(server, tmp_path):
    server.files["/set"] = as_zip({n.replace("amazon/images", "Amazon/Images"): c for n, c in FILES.items()})
    assert verify_files(fetch_office31(tmp_path / "o", [server.url + "/set"], EXPECTED), EXPECTED).ok


def test_a_wrong_archive_is_passed_over(server, tmp_path):
    server.files["/page"] = b"<html>confirm</html>"
    server.files["/few"] = as_zip(dict(list(FILES.items())[:-1]))
    server.files["/altered"] = as_zip(FILES | {"dslr/images/mug/frame_0001.jpg": b"?"})
    server.files["/set"] = as_tar(FILES)
    wrong = [server.url + name for name in ("/page", "/few", "/altered")]
    with pytest.raises(TransferError) as error:
        fetch_office31(tmp_path / "a" / "o", wrong, EXPECTED)
    assert "not a zip or tar archive" in str(error.value)
    assert "1 missing: webcam/images/mug/frame_0002.jpg" in str(error.value)
    assert "1 altered: dslr/images/mug/frame_0001.jpg" in str(error.value)
    assert list((tmp_path / "a").iterdir()) == []
    folder = fetch_office31(tmp_path / "a" / "o", [*wrong, server.url + "/set"], EXPECTED)
    assert verify_files(folder, EXPECTED).ok


def test_another_folder_is_not_overwritten(copy, server):
    (copy / "dslr/images/mug/frame_0001.jpg").unlink()
    with pytest.raises(TransferError, match=r"not a complete copy \(1 missing: dslr"):
        fetch_office31(copy, [server.url + "/set"], EXPECTED)
    assert server.asked == []


def test_the_mirrors_are_pinned():
    assert "9090f7fdd7c149c6158c5145b516abee97bb0944" in module.MIRRORS[0]
    assert all(url.startswith("https://") for url in module.MIRRORS)


def test_the_real_copy():
    folder = SHARED / "data" / "office31"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not here")
    assert verify_files(folder).ok
    assert find_office31(SHARED / "data") == folder
