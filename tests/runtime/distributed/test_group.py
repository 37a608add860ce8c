import json
import os
import subprocess
import sys
import threading
import time
from datetime import timedelta

import pytest

from transfer.cli.main import main
from transfer.errors import TransferError
from transfer.runtime import distributed
from transfer.runtime.distributed import group


def test_one_process_is_the_first_and_has_all_cores():
    assert distributed.is_rank_zero()
    assert (distributed.get_rank(), distributed.get_world_size()) == (0, 1)
    assert (distributed.get_local_rank(), distributed.get_local_world_size()) == (0, 1)
    assert distributed.count_cores_per_process() == os.cpu_count()
    assert distributed.any_rank(True) is True
    assert distributed.broadcast("as it is") == "as it is"
    distributed.wait_for_all()
    with distributed.join_process_group(), distributed.local_rank_zero_first(), distributed.silence_other_ranks():
        assert distributed.get_world_size() == 1


def test_torch_is_not_imported():
    code = "import sys; from transfer.runtime import distributed; distributed.broadcast(1)"
    code += "; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(("number", "speaks"), [("0", True), ("1", False)])
def test_before_the_processes_have_met_the_first_alone_speaks(number, speaks, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", number)
    assert distributed.is_launched()
    with distributed.silence_other_ranks():
        print("hello")
    assert distributed.print_once("transfer: no") is speaks
    heard = capsys.readouterr()
    assert (heard.out, heard.err) == (("hello\n", "transfer: no\n") if speaks else ("", ""))


@pytest.mark.parametrize("check", ["words"])
def test_in_several(ran, check):
    assert ran[check]["codes"] == [0] * len(ran[check]["codes"]), ran[check]["err"]


def meeting(monkeypatch, store, number=0):
    """Let process `number` of two find `store`, and have nothing else to wait for."""
    import torch.distributed as dist

    for name, value in {"WORLD_SIZE": "2", "RANK": str(number)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(dist, "rendezvous", lambda *_, **__: iter([(store, number, 2)]))
    monkeypatch.setattr(dist, "init_process_group", lambda *_, **__: None)
    return dist.PrefixStore("transfer", store)


def test_the_first_goes_on_only_when_all_have_met(monkeypatch):
    import torch.distributed as dist

    words, came = meeting(monkeypatch, dist.HashStore()), []

    def late():
        time.sleep(0.3)
        came.append(1)
        words.set("met 1", "")

    other = threading.Thread(target=late)
    other.start()
    assert group._rendezvous().rank == 0
    assert came == [1]
    other.join()


def test_another_than_the_first_waits_for_nobody(monkeypatch):
    import torch.distributed as dist

    words = meeting(monkeypatch, dist.HashStore(), 1)
    assert group._rendezvous().rank == 1
    assert words.check(["met 1"])


def test_those_that_cannot_meet_are_told_so_in_one_line(monkeypatch):
    import torch.distributed as dist

    store = dist.HashStore()
    store.set_timeout(timedelta(seconds=0.1))
    meeting(monkeypatch, store)
    with (
        pytest.raises(TransferError, match=r"^the processes of this run cannot meet: .+$"),
        distributed.join_process_group(),
    ):
        pass
    assert distributed.get_world_size() == 1


def test_without_an_address_there_is_no_meeting(monkeypatch, capsys):
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"WORLD_SIZE": "2", "RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    assert main(["train", "--policy", "partial:1"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("transfer: the processes of this run cannot meet: ")
    assert "MASTER_" in said
    assert said.count("\n") == 1


def test_where_one_fails_all_end_and_one_line_says_why(ran):
    out = ran["one fails"]
    assert out["codes"][0] == 2
    assert out["codes"][1] != 0
    assert out["err"][0].startswith("transfer: --out ")
    assert "letter.txt" in out["err"][0]
    assert "Traceback" not in "".join(out["err"])
    assert out["seconds"] < 60


def test_where_all_fail_one_line_says_why(ran):
    out = ran["all fail"]
    assert out["codes"] == [2, 2]
    assert "".join(out["err"]).count("unknown policy") == 1
    assert ran["mistyped"]["codes"] == [2, 2]
    assert "polcy" in ran["mistyped"]["err"][0]
    assert not ran["mistyped"]["err"][1]
    assert ran["alone"]["codes"] == [2, 2]
    assert "without torchrun" in ran["alone"]["err"][0]


def test_a_process_that_is_killed_ends_the_run(ran):
    out = ran["killed"]
    assert out["codes"] == [2, -9]
    assert out["err"][0] == "transfer: another process of this run ended too early, so this one ends too\n"
    assert out["seconds"] < 60


def test_it_resumes_with_another_number_of_processes(ran):
    out = ran["resumed"]
    assert out["codes"] == [0, 0, 0], out["err"]
    assert "epoch   8/8" in out["out"][0]
    lines = (ran[""] / "killed" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == list(range(1, 9))
    assert (ran[""] / "killed" / "result.json").exists()
