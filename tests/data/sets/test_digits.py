import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from transfer.data.folders import read_folder
from transfer.data.sets import digits, glyphs
from transfer.errors import TransferError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return digits.build_digits(tmp_path_factory.mktemp("set") / "digits")


def few(seed=0):
    """Stand in for `draw` where only the files matter."""
    rng = np.random.default_rng(seed)
    for domain in digits.DIGIT_DOMAINS:
        for label in "01":
            for _ in range(3):
                yield domain, label, Image.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8))


def contents(folder):
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def test_ten_digits_in_three_domains(folder):
    table = read_folder(folder)
    assert table.domains == ("blended", "printed", "scanned")
    assert table.objects == tuple("0123456789")
    assert all(850 < n < 950 for n in np.bincount(table.domain))
    cells = Counter(zip(table.domain, table.object, strict=True))
    assert len(cells) == 30
    assert min(cells.values()) >= 85
    first = Image.open(table.paths[0])
    assert (first.size, first.mode) == ((glyphs.SIZE, glyphs.SIZE), "RGB")
    assert Path(table.paths[0]).name == "0000.png"


def test_the_same_seed_gives_the_same_pixels(folder):
    numbers = Counter()
    for domain, label, image in digits.draw_digits(0):
        file = folder / domain / label / f"{numbers[domain, label]:04d}.png"
        numbers[domain, label] += 1
        assert np.array_equal(Image.open(file), image), file
    other = next(digits.draw_digits(1))[2]
    assert not np.array_equal(other, next(digits.draw_digits(0))[2])


def test_the_same_pixels_give_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(digits, "draw_digits", few)
    one, other = (digits.build_digits(tmp_path / name) for name in "ab")
    assert contents(one) == contents(other)
    assert contents(digits.build_digits(tmp_path / "c", seed=1)) != contents(one)


def test_every_scan_is_used_once_and_halves_are_even(monkeypatch):
    used = {"scanned": [], "blended": []}
    blank = Image.new("RGB", (1, 1))
    for domain, scans in used.items():
        monkeypatch.setattr(digits, f"_{domain}", lambda scan, rng, scans=scans: scans.append(scan.tobytes()) or blank)
    drawn = Counter((domain, label) for domain, label, _ in digits.draw_digits(3) if domain != "printed")
    every = Counter(scan.tobytes() for scan in load_digits().images)
    assert Counter(used["scanned"]) + Counter(used["blended"]) == every
    assert not set(used["scanned"]) & set(used["blended"])
    assert all(abs(drawn["scanned", d] - drawn["blended", d]) <= 1 for d in "0123456789")


def test_prints_use_their_own_fonts_and_photographs(monkeypatch):
    seen, halves = set(), set()
    template, photo_patch = glyphs.template, glyphs.photo_patch
    monkeypatch.setattr(glyphs, "template", lambda face, c: seen.add((face, c)) or template(face, c))
    monkeypatch.setattr(glyphs, "photo_patch", lambda rng, half: halves.add(half) or photo_patch(rng, half))
    sum(1 for _ in digits.draw_digits(0))
    assert {face for face, _ in seen} == {f for family in glyphs.PRINTED.values() for f in family}
    assert {c for _, c in seen} == set("0123456789")
    assert halves == {"right"}


def test_a_complete_set_is_left_alone_and_a_damaged_one_made_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(digits, "draw_digits", few)
    folder = digits.build_digits(tmp_path / "set")
    whole, made = contents(folder), os.stat(folder).st_ino
    assert digits.build_digits(folder) == folder
    assert os.stat(folder).st_ino == made
    (folder / "printed" / "0" / "0001.png").unlink()
    assert contents(digits.build_digits(folder)) == whole
    (folder / "printed" / "0" / "0001.png").write_bytes(b"")
    assert contents(digits.build_digits(folder)) == whole
    (folder / ".made-from.json").write_text("{")
    assert contents(digits.build_digits(folder)) == whole
    assert contents(digits.build_digits(folder, seed=1)) != whole
    assert [p.name for p in tmp_path.iterdir()] == ["set"]


def test_it_lies_in_the_cache_under_what_it_is_made_from(tmp_path, monkeypatch):
    monkeypatch.setenv("TRANSFER_CACHE", str(tmp_path))
    monkeypatch.setattr(digits, "draw_digits", few)
    folders = {digits.build_digits(), digits.build_digits(seed=1)}
    assert len(folders) == 2
    assert all(f.parent == tmp_path / "digits" for f in folders)
    made_from = json.loads((digits.build_digits(seed=1) / ".made-from.json").read_text())["made_from"]
    assert made_from["seed"] == 1
    assert made_from["numpy"] == np.__version__


def test_a_folder_of_something_else_is_refused_and_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(digits, "draw_digits", few)
    (tmp_path / "holiday.png").write_bytes(b"sea")
    with pytest.raises(TransferError, match="holds other files"):
        digits.build_digits(tmp_path)
    assert contents(tmp_path) == {"holiday.png": b"sea"}
    with pytest.raises(TransferError, match="holds other files"):
        digits.build_digits(tmp_path / "holiday.png")


def test_a_place_that_cannot_be_written_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(digits, "draw_digits", few)
    (tmp_path / "file").touch()
    with pytest.raises(TransferError, match="cannot write the digits"):
        digits.build_digits(tmp_path / "file" / "set")


def test_two_processes_at_once_both_succeed_without_torch(tmp_path, folder):
    code = (
        "import sys; from pathlib import Path; from transfer.data.sets.digits import build_digits; "
        "build_digits(Path(sys.argv[1])); assert 'torch' not in sys.modules"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "set")]) for _ in range(2)]
    assert [process.wait(timeout=300) for process in running] == [0, 0]
    assert contents(tmp_path / "set") == contents(folder)
    assert [p.name for p in tmp_path.iterdir()] == ["set"]
