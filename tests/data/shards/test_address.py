import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transfer.data.shards.address import HEADER, Member, parse_address, read_member
from transfer.errors import TransferError


def found(tar):
    """Every member of a tar, as the standard library sees it."""
    with tarfile.open(tar) as opened:
        return [Member(str(tar), info.name, info.offset_data, info.size) for info in opened]


@given(
    st.sampled_from(["/data/a.tar", "a b/ä.tar", "http://host:80/x.tar", "https://host/x.tar?token=a:b"]),
    st.text(st.characters(codec="utf-8"), min_size=1),
    st.integers(0, 2**50),
    st.integers(0, 2**50),
)
def test_an_address_says_what_it_was_made_of(shard, name, offset, size):
    member = Member(shard, name, offset, size)
    assert parse_address(str(member)) == member


@pytest.mark.parametrize(
    "path", ["a/b.jpg", "a.tar", "a.tar::b.jpg", "http://[::1]:80/a.tar", "a.tar::b@1+", "a.zip::b@1+2"]
)
def test_what_is_no_address(path):
    assert parse_address(path) is None


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_are_read_by_their_address_alone(shard, form):
    files = {"a.jpg": b"one", "./ü/b.jpg": b"", "deep/" * 30 + "c.jpg": bytes(range(256)) * 9}
    tar = shard(files, form=form)
    assert {m.name: read_member(parse_address(str(m))) for m in found(tar)} == files


def test_a_shard_that_was_changed_is_noticed(shard):
    before = found(shard({"a.jpg": b"one", "b.jpg": b"two"}))
    for files in ({"a.jpg": b"three" * 200, "b.jpg": b"two"}, {"a.jpg": b"one", "x.jpg": b"two"}, {"a.jpg": b"one"}):
        tar = shard(files)
        with pytest.raises(TransferError, match=rf"'b.jpg' is no longer at its place in {tar}: the shard was changed"):
            read_member(before[1])
    shard({"a.jpg": b"one", "b.jpg": b"2"})
    with pytest.raises(TransferError, match="no longer at its place"):
        read_member(before[1])
    tar.unlink()
    with pytest.raises(TransferError, match=rf"cannot read 'b.jpg' of {tar}: No such file"):
        read_member(before[1])


@pytest.mark.parametrize(("offset", "size"), [(0, 10), (HEADER, 1 << 40)])
def test_no_absurd_place_is_read(shard, offset, size):
    tar = shard({"a.jpg": b"one"})
    with pytest.raises(TransferError, match="invalid offset or size of an image"):
        read_member(Member(str(tar), "a.jpg", offset, size))
