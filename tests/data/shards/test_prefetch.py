import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from transfer.data.shards import prefetch as module
from transfer.data.shards import remote
from transfer.data.shards.address import Member
from transfer.data.shards.index import read_index
from transfer.data.shards.prefetch import Contents
from transfer.errors import TransferError


@pytest.fixture
def served(server, shard, monkeypatch):
    """Addresses of 40 members, in two shards on a server, and their contents."""
    monkeypatch.setenv("TRANSFER_CACHE", "/nowhere")
    monkeypatch.setattr(remote, "BACKOFF", 0.0)
    paths, expected = [], []
    for n in range(2):
        files = {f"{n}/{i}.jpg": bytes([n, i]) * (500 + i) for i in range(20)}
        server.files[f"/{n}.tar"] = shard(files).read_bytes()
        index = read_index(f"{server.url}/{n}.tar")
        paths += [str(Member(index.shard, *image[:3])) for image in index.images]
        expected += files.values()
    server.asked.clear()
    server.sent = 0
    return paths, expected


def test_files_are_left_to_who_reads_them(tmp_path):
    assert Contents([str(tmp_path)])[0] == str(tmp_path)


def test_neighbours_come_in_one_request(served, server):
    paths, expected = served
    contents = Contents(paths)
    assert [contents[i] for i in range(40)] == expected
    assert len(server.asked) == 2
    assert server.sent < sum(len(c) for c in server.files.values())


def test_any_order_from_any_thread(served, server):
    paths, expected = served
    order = np.random.default_rng(0).permutation(40)[:25]
    contents = Contents(np.array(paths), order)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(contents.__getitem__, range(25))) == [expected[i] for i in order]
    assert server.sent <= sum(len(expected[i]) + 512 for i in order) + 25 * module.MAX_GAP_BYTES


def test_strangers_are_fetched_alone(served, server, monkeypatch):
    paths, expected = served
    monkeypatch.setattr(module, "MAX_GAP_BYTES", 100)
    contents = Contents(paths, np.arange(0, 40, 3)[::-1])
    assert [contents[i] for i in range(14)] == expected[::3][::-1]
    assert server.sent == sum(len(c) + 512 for c in expected[::3])


def test_only_so_much_is_fetched_ahead(served, server, monkeypatch):
    paths, expected = served
    monkeypatch.setattr(module, "MAX_REQUEST_BYTES", 2000)  # one or two members
    monkeypatch.setattr(module, "MAX_PENDING_REQUESTS", 3)
    contents = Contents(paths)
    for place in range(40):
        assert contents[place] == expected[place]
        assert len(contents._unused) <= 3
        assert len(contents._waiting) <= 6
    assert not contents._waiting


def test_what_is_asked_for_again_is_fetched_again(served):
    paths, expected = served
    contents = Contents(paths)
    assert (contents[0], contents[0], contents[1]) == (expected[0], expected[0], expected[1])


def test_a_failure_names_shard_and_member(served, server):
    paths, _ = served
    server.status["/1.tar"] = 404
    contents = Contents(paths)
    assert contents[0]
    with pytest.raises(TransferError, match=r"cannot read '1/0.jpg' of http://.*/1.tar: HTTP 404"):
        contents[20]


def test_nobody_waits_for_what_was_given_up(served, server):
    before = set(threading.enumerate())
    contents = Contents(served[0])
    assert contents[0]
    contents.close()
    started = [thread for thread in threading.enumerate() if thread not in before]
    for thread in started:
        if "ThreadPool" in thread.name:
            thread.join(5)
    assert sum(thread.is_alive() for thread in started) <= 1  # of the server
