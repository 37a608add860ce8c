import io
import stat
import tarfile
import zipfile

import pytest

from transfer.data.sets.unpack import unpack_archive
from transfer.errors import TransferError


def make_zip(path, members, **options):
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def make_tar(path, members, mode="w:gz"):
    with tarfile.open(path, mode) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


MAKERS = {
    "zip": lambda p, m: make_zip(p, m),
    "tar": lambda p, m: make_tar(p, m, "w"),
    "tar.gz": lambda p, m: make_tar(p, m),
}
MEMBERS = [("top/a/1.txt", b"one"), ("top/a/2.txt", b"two"), ("top/README", b"no")]


def texts(name):
    return name.removeprefix("top/") if name.endswith(".txt") else None


@pytest.fixture(params=MAKERS)
def make(request, tmp_path):
    return lambda members: MAKERS[request.param](tmp_path / f"x.{request.param}", members)


def test_what_is_kept_and_nothing_else(make, tmp_path):
    archive = make(MEMBERS)
    assert unpack_archive(archive, tmp_path / "out", keep=texts) == tmp_path / "out"
    found = {str(p.relative_to(tmp_path / "out")): p for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert {name: p.read_bytes() for name, p in found.items()} == {"a/1.txt": b"one", "a/2.txt": b"two"}
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([archive.name, "out"])
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) & 0o500 == 0o500


@pytest.mark.parametrize(
    ("members", "keep", "words"),
    [
        ([("../1.txt", b"x")], texts, "outside its folder ('../1.txt')"),
        ([("a/../../1.txt", b"x")], texts, "outside its folder"),
        ([("/1.txt", b"x")], texts, "outside its folder ('/1.txt')"),
        ([("C:\\1.txt", b"x")], texts, "outside its folder"),
        ([("..\\1.txt", b"x")], texts, "outside its folder"),
        ([("a/1.txt", b"x"), ("../evil", b"x")], texts, "outside its folder ('../evil')"),
        ([("a", b"x")], lambda name: "../a", "outside its folder ('../a')"),
        ([("a/1.txt", b"x"), ("a/1.TXT.txt", b"y")], lambda n: n[:5] + n[-1].upper(), "twice"),
        ([("a", b"x")], texts, "none of the expected files"),
        ([], texts, "none of the expected files"),
        ([("1.txt", b"x" * 200)], texts, "more than 100 bytes"),
        ([("big", b"x" * 200), ("1.txt", b"x")], texts, "more than 100 bytes"),
    ],
)
def test_what_is_unsafe_is_refused_and_leaves_nothing(make, tmp_path, members, keep, words):
    archive = make(members)
    with pytest.raises(TransferError) as error:
        unpack_archive(archive, tmp_path / "deep" / "out", keep=keep, limit=100)
    assert words in str(error.value)
    assert list((tmp_path / "deep").iterdir()) == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["deep", archive.name]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_tar_links_and_devices_are_refused(tmp_path, kind):
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        info = tarfile.TarInfo("a.txt")
        info.type, info.linkname = kind, "/etc/passwd"
        archive.addfile(info)
    with pytest.raises(TransferError, match="link or device"):
        unpack_archive(tmp_path / "x.tar", tmp_path / "out", keep=texts)


def test_zip_links_are_refused(tmp_path):
    info = zipfile.ZipInfo("a.txt")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    make_zip(tmp_path / "x.zip", [(info, "/etc/passwd")])
    with pytest.raises(TransferError, match="link or device"):
        unpack_archive(tmp_path / "x.zip", tmp_path / "out", keep=texts)


@pytest.mark.parametrize("form", ["zip", "tar.gz"])
def test_a_bomb_is_refused(tmp_path, form):
    content = b"\0" * (201 << 20)  # of a small archive, 200 MiB at most
    members = [("a.txt", content)]
    if form == "zip":
        archive = make_zip(tmp_path / "x.zip", members, compression=zipfile.ZIP_DEFLATED)
    else:
        archive = make_tar(tmp_path / "x.tar.gz", members)
    assert archive.stat().st_size < 1 << 20
    with pytest.raises(TransferError, match="would unpack to more than 209,715,200 bytes"):
        unpack_archive(archive, tmp_path / "out", keep=texts)


def test_damaged_archives(make, tmp_path):
    members = [(f"{i}.txt", bytes([i]) * 3000) for i in range(50)]
    archive = make(members)
    whole = archive.read_bytes()
    archive.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TransferError, match=r"damaged|not a zip or tar"):
        unpack_archive(archive, tmp_path / "out", keep=texts)
    assert not (tmp_path / "out").exists()


def test_a_flipped_byte_in_a_zip_is_found(tmp_path):
    archive = make_zip(tmp_path / "x.zip", [("a.txt", b"some text of no importance")])
    content = bytearray(archive.read_bytes())
    content[content.index(b"importance")] ^= 1
    archive.write_bytes(content)
    with pytest.raises(TransferError, match="damaged"):
        unpack_archive(archive, tmp_path / "out", keep=texts)


def test_a_page_is_no_archive(tmp_path):
    (tmp_path / "x.zip").write_text("<html>sign in</html>")
    with pytest.raises(TransferError, match=r"x\.zip is not a zip or tar archive"):
        unpack_archive(tmp_path / "x.zip", tmp_path / "out", keep=texts)


def test_the_destination_must_be_free(make, tmp_path):
    archive = make(MEMBERS)
    (tmp_path / "out").mkdir()
    unpack_archive(archive, tmp_path / "out", keep=texts)
    with pytest.raises(TransferError, match="it exists and is not an empty folder"):
        unpack_archive(archive, tmp_path / "out", keep=texts)


def test_names_that_no_archive_should_have_are_damage(tmp_path):
    """Found by fuzzing: a name without a letter, and one that says it is UTF-8 and is not."""
    empty, no_text = tmp_path / "empty.zip", tmp_path / "no_text.zip"
    with zipfile.ZipFile(empty, "w") as archive:
        archive.writestr(zipfile.ZipInfo("q"), b"x")
        archive.filelist[0].filename = ""
    no_text.write_bytes(make_zip(tmp_path / "b.zip", [("ä.txt", b"x")]).read_bytes().replace("ä".encode(), b"\xff\xff"))
    for archive in (empty, no_text):
        with pytest.raises(TransferError, match=f"the archive {archive.name} is damaged"):
            unpack_archive(archive, tmp_path / "out", keep=lambda name: name)
        assert not (tmp_path / "out").exists()
