import io
import subprocess
import sys
from pathlib import Path

import pytest

from transfer.errors import TransferError
from transfer.evaluation.prediction_file import PredictionFile

SETTINGS = {"run": "f00", "top": 5}
BATCH = 4


@pytest.fixture
def paths(tmp_path):
    """Names of 11 files: two full batches and a short one."""
    made = [tmp_path / "images" / f"{name}.png" for name in range(11)]
    made[0].parent.mkdir()
    for path in made:
        path.write_text(path.name)
    return list(map(str, made))


def write_all(out, paths, *, resume=True, stop_after=None, settings=SETTINGS, size=BATCH):
    """Write a line for each path, whose text depends on the size of its batch; return the paths that were computed."""
    computed = []
    with PredictionFile(out, settings, batch_size=size, resume=resume) as file:
        for start in range(0, len(paths), size):
            batch = paths[start : start + size]
            first = file.count_answered(batch)
            if first == len(batch):
                continue
            computed += batch[first:]
            lines = [f"{path} in a batch of {len(batch)}\n" for path in batch]
            file.write(lines[first:], [path.endswith("3.png") for path in batch[first:]], "head\n")
            if stop_after is not None and len(computed) >= stop_after:
                raise KeyboardInterrupt
        file.finish()
        assert (file.rows, file.bad) == (len(paths), 1)
    return computed


def test_a_finished_file_is_whole_and_alone(tmp_path, paths):
    out = tmp_path / "out" / "rows"
    assert write_all(out, paths, resume=False) == paths
    assert out.read_text().splitlines() == [
        "head",
        *(f"{p} in a batch of {4 if i < 8 else 3}" for i, p in enumerate(paths)),
    ]
    assert [file.name for file in out.parent.iterdir()] == ["rows"]


def test_it_resumes_to_the_same_bytes_wherever_it_was_killed(tmp_path, paths):
    """The record is written before the rows: all of a prefix of one, and then a prefix of the other."""
    whole = tmp_path / "whole"
    write_all(whole, paths)
    rows, record = whole.read_bytes(), whole.with_name("whole.resume").read_bytes()
    head = record.index(b"\n") + 1
    entry = (len(record) - head) // len(paths)
    out = tmp_path / "out"
    ends = [len(rows.splitlines(keepends=True)[0])]
    ends = [sum(map(len, rows.splitlines(keepends=True)[: i + 2])) for i in range(len(paths))]
    for kept in range(0, len(rows) + 1, 7):
        answered = sum(end <= kept for end in ends)
        for entries in {answered, min(answered + 1, 11), 11}:
            out.unlink(missing_ok=True)
            out.with_name("out.part").write_bytes(rows[:kept])
            out.with_name("out.resume").write_bytes(record[: head + entries * entry + (5 if entries < 11 else 0)])
            assert write_all(out, paths) == paths[answered:]
            assert out.read_bytes() == rows
            assert out.with_name("out.resume").read_bytes() == record
            assert not out.with_name("out.part").exists()


def test_what_was_damaged_is_written_again(tmp_path, paths):
    out = tmp_path / "rows"
    write_all(out, paths)
    rows = out.read_bytes()
    out.rename(tmp_path / "rows.part").write_bytes(rows.replace(b"5.png in", b"5.png on"))
    assert write_all(out, paths) == paths[5:]
    assert out.read_bytes() == rows


def test_a_finished_file_is_not_computed_again_and_takes_further_images(tmp_path, paths):
    out, fresh = tmp_path / "rows", tmp_path / "fresh"
    write_all(out, paths[:10])
    assert write_all(out, paths[:10]) == []
    assert write_all(out, paths) == paths[8:]  # the last batch was smaller, which may change last digits
    write_all(fresh, paths)
    assert out.read_bytes() == fresh.read_bytes()


def change(path):
    Path(path).write_text("other")


REFUSED = {
    "another order": (
        lambda p: [*p[:2], p[3], p[2], *p[4:]],
        SETTINGS,
        r"row 3 of .*part is of another image than .*3\.png",
    ),
    "fewer": (lambda p: p[:5], SETTINGS, "has 8 rows, but only 5 images are given"),
    "fewer whole batches": (lambda p: p[:4], SETTINGS, "has 8 rows, but only 4 images are given"),
    "a changed image": (lambda p: change(p[6]) or p, SETTINGS, r"6\.png was changed since row 7 of"),
    "a missing image": (lambda p: Path(p[6]).unlink() or p, SETTINGS, r"6\.png was changed since row 7 of"),
    "another run": (lambda p: p, SETTINGS | {"run": "bad"}, "was made with another run: use what"),
    "another option": (lambda p: p, SETTINGS | {"top": 1, "coverage": 0.9}, "was made with another top, coverage"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_images_and_settings_are_refused_in_one_line(tmp_path, paths, case):
    modify, settings, message = REFUSED[case]
    out = tmp_path / "rows"
    with pytest.raises(KeyboardInterrupt):
        write_all(out, paths, stop_after=8)
    part, record = (out.with_name(f"rows.{kind}").read_bytes() for kind in ("part", "resume"))
    with pytest.raises(TransferError, match=message) as refused:
        write_all(out, modify(paths), settings=settings)
    assert "\n" not in str(refused.value)
    assert "leave out --resume to start again" in str(refused.value)
    assert [out.with_name(f"rows.{kind}").read_bytes() for kind in ("part", "resume")] == [part, record]
    assert write_all(out, paths, resume=False, settings=settings) if "missing" not in case else True


def test_a_damaged_record_is_named(tmp_path, paths):
    out = tmp_path / "rows"
    with pytest.raises(KeyboardInterrupt):
        write_all(out, paths, stop_after=8)
    for content in (b"", b"[]\n", b"{"):
        out.with_name("rows.resume").write_bytes(content)
        with pytest.raises(TransferError, match=r"rows\.resume is damaged: leave out --resume"):
            write_all(out, paths)


def test_a_command_that_fails_before_its_first_row_leaves_nothing(tmp_path, paths):
    def fail(resume):
        with PredictionFile(tmp_path / "rows", SETTINGS, batch_size=BATCH, resume=resume) as file:
            file.count_answered(paths[:4])
            raise KeyboardInterrupt

    for resume in (False, True):
        with pytest.raises(KeyboardInterrupt):
            fail(resume)
        assert [path.name for path in tmp_path.iterdir()] == ["images"]


def test_rows_of_an_unfinished_command_are_named_before_they_are_replaced(tmp_path, paths, caplog):
    caplog.set_level("INFO", "transfer")
    out = tmp_path / "rows"
    with pytest.raises(KeyboardInterrupt):
        write_all(out, paths, resume=False, stop_after=4)
    assert caplog.messages == [f"{out}.part has the first 4 rows: --resume continues there"]
    write_all(out, paths, resume=False)
    assert caplog.messages[1:] == [f"{out}.part, which an earlier command left unfinished, is replaced"]


HOLD = """
import sys
from pathlib import Path
from transfer.evaluation.prediction_file import PredictionFile
with PredictionFile(Path(sys.argv[1]), {}, batch_size=4, resume=False):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_two_processes_do_not_write_one_file(tmp_path):
    out = tmp_path / "rows"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", HOLD, str(out)], **pipes) as other:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(TransferError, match=f"another process is writing to the file {out}: wait for it"):
            PredictionFile(out, {}, batch_size=4, resume=True)
        other.kill()
    with PredictionFile(out, {}, batch_size=4, resume=True):
        pass


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full disk here")
def test_a_full_disk_is_one_line(tmp_path, paths, monkeypatch):
    out = tmp_path / "rows"
    monkeypatch.setattr(PredictionFile, "_create", lambda self: (io.BytesIO(), Path("/dev/full").open("wb")))  # noqa: SIM115
    with pytest.raises(TransferError, match=r"cannot write .*rows: No space left on device"):
        write_all(out, paths)
