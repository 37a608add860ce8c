import json
import os
import subprocess
import sys

import pytest

from transfer import parallel


def test_one_process_is_the_first_and_has_all_cores():
    assert (parallel.rank(), parallel.world(), parallel.first(), parallel.local()) == (0, 1, True, (0, 1))
    assert parallel.cores() == os.cpu_count()
    assert parallel.agreed(True) is True
    assert parallel.same("as it is") == "as it is"
    parallel.wait()
    with parallel.together(), parallel.in_turn(), parallel.quiet():
        assert parallel.world() == 1


def test_torch_is_not_imported():
    code = "import sys; from transfer import parallel; parallel.same(1); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(("number", "speaks"), [("0", True), ("1", False)])
def test_before_the_processes_have_met_the_first_alone_speaks(number, speaks, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", number)
    assert parallel.launched()
    with parallel.quiet():
        print("hello")
    assert parallel.say("transfer: no") is speaks
    heard = capsys.readouterr()
    assert (heard.out, heard.err) == (("hello\n", "transfer: no\n") if speaks else ("", ""))


@pytest.mark.parametrize("check", ["words"])
def test_in_several(ran, check):
    assert ran[check]["codes"] == [0] * len(ran[check]["codes"]), ran[check]["err"]


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
    assert out["err"][0] == "transfer: another process of this run ended too early, and all end with it\n"
    assert out["seconds"] < 60


def test_it_resumes_with_another_number_of_processes(ran):
    out = ran["resumed"]
    assert out["codes"] == [0, 0, 0], out["err"]
    assert "epoch   8/8" in out["out"][0]
    lines = (ran[""] / "killed" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == list(range(1, 9))
    assert (ran[""] / "killed" / "result.json").exists()
