import csv
import json
import os
from pathlib import Path

import pytest

from transfer.errors import TransferError
from transfer.runs.folder import RunFolder


def files(path: Path) -> list[str]:
    return sorted(str(p.relative_to(path)) for p in path.rglob("*") if p.name != ".lock")


def fill(folder: RunFolder) -> None:
    folder.append_metrics({"epoch": 1, "loss": 0.5})
    folder.write_predictions([{"path": "a, b.jpg", "object": "mug"}])
    folder.write_result({"test": {}})
    (folder.path / "model.safetensors").write_bytes(b"weights")


def test_a_new_folder_holds_the_config_at_once(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "runs" / "a", {"seed": 3})
    assert files(folder.path) == ["config.json", "metrics.jsonl"]
    assert json.loads((folder.path / "config.json").read_text()) == {"seed": 3}


def test_an_empty_folder_will_do(tmp_path: Path) -> None:
    assert RunFolder(tmp_path, {}).path == tmp_path


def test_what_is_written(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "a", {})
    fill(folder)
    folder.append_metrics({"epoch": 2, "loss": 0.25, "note": "größer"})
    lines = (folder.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [
        {"epoch": 1, "loss": 0.5},
        {"epoch": 2, "loss": 0.25, "note": "größer"},
    ]
    with (folder.path / "predictions.csv").open(newline="") as file:
        assert list(csv.DictReader(file)) == [{"path": "a, b.jpg", "object": "mug"}]
    assert json.loads((folder.path / "result.json").read_text()) == {"test": {}}


def test_no_test_images_no_predictions(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "a", {})
    folder.write_predictions([])
    assert (folder.path / "predictions.csv").read_text().strip() == "path"


def test_an_existing_run_is_refused_and_left_alone(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "a", {"seed": 1})
    fill(folder)
    with pytest.raises(TransferError, match="already holds a run: name another folder, or replace it with --overwrite"):
        RunFolder(tmp_path / "a", {"seed": 2})
    assert json.loads((folder.path / "config.json").read_text()) == {"seed": 1}
    assert "model.safetensors" in files(folder.path)


def test_overwrite_replaces_a_run_and_its_inner_runs(tmp_path: Path) -> None:
    fill(RunFolder(tmp_path / "a", {"seed": 1}))
    fill(RunFolder(tmp_path / "a" / "seed0", {}))
    RunFolder(tmp_path / "a", {"seed": 2}, overwrite=True)
    assert files(tmp_path / "a") == ["config.json", "metrics.jsonl"]
    assert json.loads((tmp_path / "a" / "config.json").read_text()) == {"seed": 2}
    assert (tmp_path / "a" / "metrics.jsonl").read_text() == ""


def test_what_begins_later_writes_and_replaces_nothing_before(tmp_path: Path) -> None:
    new = RunFolder(tmp_path / "new", {}, later=True)
    assert not new.path.exists()
    fill(RunFolder(tmp_path / "a", {"seed": 1}))
    before = files(tmp_path / "a")
    later = RunFolder(tmp_path / "a", {"seed": 2}, overwrite=True, later=True)
    inner = later.inner("seed0", {"seed": 3})
    assert files(tmp_path / "a") == before
    inner.append_metrics({"epoch": 1})
    assert files(tmp_path / "a") == [
        "config.json",
        "metrics.jsonl",
        "seed0",
        "seed0/config.json",
        "seed0/metrics.jsonl",
    ]
    assert [json.loads((f.path / "config.json").read_text()) for f in (later, inner)] == [{"seed": 2}, {"seed": 3}]
    later.append_metrics({"epoch": 1})
    assert len(files(tmp_path / "a")) == 5


@pytest.mark.parametrize("later", [False, True])
def test_what_cannot_be_is_said_at_once_however_late_it_begins(tmp_path: Path, later: bool) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TransferError, match="cannot write the run folder"):
        RunFolder(tmp_path / "file" / "a", {}, later=later)
    fill(RunFolder(tmp_path / "a", {}))
    with pytest.raises(TransferError, match="already holds a run"):
        RunFolder(tmp_path / "a", {}, later=later)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("foreign", ["thesis.tex", "photos/1.jpg", "seed0/notes.txt"])
def test_other_things_are_never_touched(tmp_path: Path, foreign: str, overwrite: bool) -> None:
    fill(RunFolder(tmp_path / "a", {}))
    (tmp_path / "a" / foreign).parent.mkdir(exist_ok=True)
    (tmp_path / "a" / foreign).write_text("mine")
    before = files(tmp_path / "a")
    with pytest.raises(TransferError, match="holds other files") as caught:
        RunFolder(tmp_path / "a", {}, overwrite=overwrite)
    assert foreign.split("/")[0] in str(caught.value)
    assert files(tmp_path / "a") == before
    assert (tmp_path / "a" / foreign).read_text() == "mine"


@pytest.mark.parametrize("overwrite", [False, True])
def test_things_inside_an_inner_run_are_never_touched_either(tmp_path: Path, overwrite: bool) -> None:
    fill(RunFolder(tmp_path / "a", {}))
    fill(RunFolder(tmp_path / "a" / "seed0", {}))
    (tmp_path / "a" / "seed0" / "thesis.tex").write_text("mine")
    with pytest.raises(TransferError):
        RunFolder(tmp_path / "a", {}, overwrite=overwrite)
    assert (tmp_path / "a" / "seed0" / "thesis.tex").read_text() == "mine"


def test_what_a_killed_run_left_half_written_is_ours(tmp_path: Path) -> None:
    fill(RunFolder(tmp_path / "a", {}))
    (tmp_path / "a" / ".model.safetensors.x1y2.part").write_bytes(b"half")
    RunFolder(tmp_path / "a", {}, overwrite=True)
    assert files(tmp_path / "a") == ["config.json", "metrics.jsonl"]


@pytest.mark.parametrize("place", ["file", "file/below", "file/below/further"])
def test_a_path_at_or_under_a_file_is_one_line(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(TransferError) as caught:
        RunFolder(tmp_path / place, {})
    assert str(tmp_path / place) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert (tmp_path / "file").read_text() == "in the way"


@pytest.mark.usefixtures("unprivileged")
def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(TransferError, match="cannot write"):
        RunFolder(tmp_path / "a", {})


def test_a_read_only_file_system_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, *args: object, **kwargs: object) -> None:
        raise OSError(30, "Read-only file system", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(TransferError, match=r"cannot write the run folder .*Read-only file system") as caught:
        RunFolder(tmp_path / "a", {})
    assert "\n" not in str(caught.value)


def test_merging_inner_runs(tmp_path: Path) -> None:
    whole = RunFolder(tmp_path / "a", {})
    parts = []
    for seed in (0, 1):
        part = RunFolder(whole.path / f"seed{seed}", {})
        part.append_metrics({"epoch": 1, "loss": seed})
        part.write_predictions([{"path": f"{seed}.jpg"}])
        (part.path / "model.safetensors").write_bytes(bytes([seed]))
        parts.append(part.path)
    whole.merge_inner_runs(parts)
    lines = (whole.path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"run": "seed0", "epoch": 1, "loss": 0},
        {"run": "seed1", "epoch": 1, "loss": 1},
    ]
    assert (whole.path / "model.safetensors").read_bytes() == b"\0"
    assert "0.jpg" in (whole.path / "predictions.csv").read_text()
    assert (parts[1] / "model.safetensors").read_bytes() == b"\1"
    assert not (whole.path / "map.png").exists()


def test_merging_takes_a_map_where_there_is_one(tmp_path: Path) -> None:
    whole = RunFolder(tmp_path / "a", {})
    part = RunFolder(whole.path / "seed0", {})
    part.write_predictions([])
    for name in ("model.safetensors", "map.png"):
        (part.path / name).write_bytes(b"\3")
    whole.merge_inner_runs([part.path])
    assert (whole.path / "map.png").read_bytes() == b"\3"


def test_a_resumed_run_keeps_its_lines_but_for_half_of_one(tmp_path: Path) -> None:
    config = {"trials": 5, "run": {"seed": 1, "out": "a"}}
    folder = RunFolder(tmp_path / "a", config)
    folder.append_metrics({"trial": 0, "note": "größer"})
    folder.append_metrics({"trial": 1})
    lines = folder.path / "metrics.jsonl"
    sound = lines.read_bytes()
    for half in (b"", b'{"tri', '{"note": "gr\u00f6'.encode()[:-1], b'{"trial": 2}'):
        lines.write_bytes(sound + half)
        again = RunFolder(tmp_path / "a", {"trials": 5, "run": {"seed": 1, "out": "elsewhere"}}, resume=True)
        assert [line["trial"] for line in again.read_metrics()] == [0, 1]
        assert lines.read_bytes() == sound
    again.append_metrics({"trial": 2})
    assert [line["trial"] for line in again.read_metrics()] == [0, 1, 2]


def test_what_cannot_be_resumed_says_why(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "a", {"trials": 5, "run": {"seed": 1}})
    folder.append_metrics({"trial": 0})
    with pytest.raises(TransferError, match="has another trials, seed; use the options it was started with"):
        RunFolder(tmp_path / "a", {"trials": 6, "run": {"seed": 2}}, resume=True)
    assert len(folder.read_metrics()) == 1
    with (folder.path / "metrics.jsonl").open("a") as file:
        file.write("{no json}\n")
    with pytest.raises(TransferError, match=r"metrics.jsonl is damaged: start over with --overwrite"):
        RunFolder(tmp_path / "a", {"trials": 5, "run": {"seed": 1}}, resume=True).read_metrics()
    assert RunFolder(tmp_path / "new", {}, resume=True).read_metrics() == []


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b'{"a":' * 300 + b"1" + b"}" * 300])
def test_a_damaged_config_is_one_line(tmp_path: Path, content: bytes) -> None:
    folder = RunFolder(tmp_path / "a", {"trials": 5})
    (folder.path / "config.json").write_bytes(content)
    with pytest.raises(TransferError, match=r"cannot read .*config\.json as JSON"):
        RunFolder(tmp_path / "a", {"trials": 5}, resume=True)


@pytest.mark.parametrize("content", [b"\xff\n", b"[]\n", b"[" * 100_000 + b"\n", b'{"trial": 0}\n{"other": 1}\n'])
def test_damaged_metrics_are_one_line(tmp_path: Path, content: bytes) -> None:
    folder = RunFolder(tmp_path / "a", {})
    (folder.path / "metrics.jsonl").write_bytes(content)
    with pytest.raises(TransferError, match=r"metrics\.jsonl is damaged: start over"):
        folder.read_metrics(("trial",))


def test_names_that_are_no_text_come_back(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff\x1b, \"'\n\r=1")
    folder = RunFolder(tmp_path / "a", {})
    folder.append_metrics({"name": name})
    folder.write_predictions([{"path": name}])
    assert folder.read_metrics() == [{"name": name}]
    with (folder.path / "predictions.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        assert list(csv.DictReader(file)) == [{"path": name}]
