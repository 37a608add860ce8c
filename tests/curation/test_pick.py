import csv
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from transfer.config.curation import PickConfig
from transfer.config.shared import BackboneConfig, ImagesConfig
from transfer.config.train import DataConfig, LearnConfig, TrainConfig
from transfer.curation.pick import pick
from transfer.errors import TransferError
from transfer.training.train import train

GLYPHNET = BackboneConfig("glyphnet")
COLOURS = ("blue", "green", "red")
SHARED = Path(__file__).parents[3] / "shared"
if not SHARED.is_dir() and "TRANSFER_DATA" in os.environ:
    SHARED = Path(os.environ["TRANSFER_DATA"]).parent
FLOWERS = ("bluebell", "daisy", "iris", "pansy", "sunflower", "tigerlily")


@pytest.fixture
def flat(images, tmp_path):
    """A folder of 48 images without labels; the file name begins with the class, which no one reads."""
    folder = tmp_path / "flat"
    folder.mkdir()
    for path, label in zip(images.paths, images.object, strict=True):
        domain, _, name = Path(path).parts[-3:]
        shutil.copy(path, folder / f"{images.objects[label]}-{domain}-{name}")
    return folder


def configure(data, **more):
    return PickConfig(ImagesConfig(str(data)), backbone=GLYPHNET, device="cpu", **more)


def read(file):
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def fill_in(file, rows=None):
    """Write the true class of the first `rows` rows (default: all) into the column object, as a user would."""
    cells = read(file)
    for cell in cells[:rows]:
        cell["object"] = cell["object"] or Path(cell["path"]).name.split("-")[0]
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, cells[0].keys())
        writer.writeheader()
        writer.writerows(cells)


def test_pick_label_train_and_pick_more(flat, tmp_path):
    out = tmp_path / "picks.csv"
    first = pick(configure(flat, n=6, out=out))
    assert (first.labelled, first.unlabelled, first.waiting, len(first.images)) == (0, 48, 0, 6)
    assert all(each.suggested == "" and each.reason for each in first.images)
    rows = read(out)
    assert [str(tmp_path / row["path"]) for row in rows] == [each.path for each in first.images]
    assert {row["object"] for row in rows} == {""}

    fill_in(out)
    data = DataConfig(str(out), test=0.0, val=0.0, unlabelled=str(flat))
    config = TrainConfig(data, GLYPHNET, learn=LearnConfig(device="cpu"))
    assert train(config).result["unlabelled"]["object"]["unlabelled"] == 42  # whether they count is another question
    assert "unlabelled" not in train(replace(config, data=replace(data, unlabelled=None))).result

    second = pick(configure(flat, n=5, out=out))
    assert (second.labelled, second.unlabelled, second.waiting) == (6, 42, 0)
    assert not {each.path for each in first.images} & {each.path for each in second.images}
    assert all(each.suggested in COLOURS and 0 < each.probability <= 1 for each in second.images)
    rows = read(out)
    assert [row["object"] for row in rows[:5]] == [""] * 5
    assert all(Path(row["path"]).name.startswith(f"{row['object']}-") for row in rows[5:])
    assert len(rows) == 11

    fill_in(out, rows=2)
    third = pick(configure(flat, n=4, out=out))
    assert (third.labelled, third.waiting) == (8, 3)
    assert [row["path"] for row in read(out)[4:7]] == [row["path"] for row in rows[2:5]]
    assert len({row["path"] for row in read(out)}) == len(read(out)) == 15


def test_without_a_file_nothing_is_written_and_the_choice_is_the_same(flat, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    first, second = (pick(configure(flat, n=7)) for _ in range(2))
    assert first.images == second.images
    assert sorted(tmp_path.rglob("*")) == before


def test_labels_come_from_class_folders_and_none_from_a_folder_without_a_class(images, tmp_path):
    for name in ("unlabelled", "Unlabeled"):
        root = tmp_path / name
        for path, label in zip(images.paths[:24], images.object[:24], strict=True):
            number = int(Path(path).stem)
            folder = root / (images.objects[label] if number < 2 else name)
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, folder / f"{images.objects[label]}-{number}.png")
        out = root / "picks.csv"
        only = tmp_path / "only.csv"
        result = pick(configure(root, n=4, out=only, only_new=True, overwrite=True))
        assert result.classes == COLOURS
        assert (result.labelled, result.unlabelled) == (6, 18)
        assert all(Path(each.path).parent.name == name for each in result.images)
        assert any("no class" in note for note in result.notes)
        assert len(read(only)) == 4
        pick(configure(root, n=4, out=out))
        assert [row["object"] for row in read(out)] == [""] * 4 + ["blue"] * 2 + ["green"] * 2 + ["red"] * 2


def test_rows_of_a_manifest_without_a_label_are_picked_but_none_of_a_held_out_part(images, tmp_path):
    lines = ["path,object,domain,split"]
    for i, (path, label, domain) in enumerate(zip(images.paths, images.object, images.domain, strict=True)):
        split = ("train", "train", "val", "test")[i % 4]
        name = images.objects[label] if i % 8 in (0, 2) else ""
        lines.append(f"{path},{name},{images.domains[domain]},{split}")
    (tmp_path / "list.csv").write_text("\n".join(lines))
    out = tmp_path / "picks.csv"
    result = pick(configure(tmp_path / "list.csv", n=18, out=out))
    place = {path: i for i, path in enumerate(images.paths.tolist())}
    picked = [place[each.path] for each in result.images]
    assert all(i % 4 < 2 and i % 8 != 0 for i in picked)
    assert sorted({each.domain for each in result.images}) == ["plain", "striped"]
    assert (result.labelled, result.unlabelled) == (6, 18)
    parts = {(row["split"], row["object"] != "") for row in read(out)}
    assert parts == {("train", False), ("train", True), ("val", True)}
    with pytest.raises(TransferError, match="is the data set itself"):
        pick(configure(tmp_path / "list.csv", n=1, out=tmp_path / "list.csv"))


def test_duplicates_are_picked_once_and_not_where_one_has_a_label_or_is_held_out(tmp_path):
    rng = np.random.default_rng(0)
    lines = ["path,object,split"]
    for i in range(12):
        pixels = np.kron(rng.integers(0, 255, (6, 6, 3)), np.ones((12, 12, 1)))
        for copy in range(3):  # the third one differs in one value, a near-duplicate
            file = tmp_path / f"{i}-{copy}.png"
            if copy == 2:
                pixels[0, 0, 0] += 1 if pixels[0, 0, 0] < 255 else -1
            Image.fromarray(pixels.astype(np.uint8)).save(file)
            held_out = "test" if i < 3 and copy == 2 else "train"
            lines.append(f"{file.name},{'x' if 3 <= i < 6 and copy == 0 else ''},{held_out}")
    (tmp_path / "list.csv").write_text("\n".join(lines))
    for strategy in ("auto", "typiclust", "random"):
        result = pick(configure(tmp_path / "list.csv", n=6, strategy=strategy))
        assert sorted(int(Path(each.path).name.split("-")[0]) for each in result.images) == list(range(6, 12))
    with pytest.raises(TransferError, match="--n 7: only 6 images can be chosen"):
        pick(configure(tmp_path / "list.csv", n=7))


def test_labels_that_were_filled_in_are_lost_only_on_request(flat, tmp_path):
    out = tmp_path / "picks.csv"
    pick(configure(flat, n=4, out=out))
    fill_in(out)
    labelled = out.read_bytes()
    for wrong in (configure(flat, n=99, out=out), configure(flat, strategy="typi", out=out)):
        with pytest.raises(TransferError):
            pick(wrong)
        assert out.read_bytes() == labelled
    pick(configure(flat, n=4, out=out))
    assert [row["object"] for row in read(out)].count("") == 4
    assert len(read(out)) == 8
    pick(configure(flat, n=4, out=out, overwrite=True))
    assert [row["object"] for row in read(out)] == [""] * 4


def test_labels_written_in_two_ways_are_one_class(flat, tmp_path):
    out = tmp_path / "picks.csv"
    pick(configure(flat, n=9, out=out))
    fill_in(out)
    head, first, *others = out.read_text().splitlines()
    shouted = first.replace(f",{Path(first.split(',')[0]).name.split('-')[0]},", f",{first.split(',')[1].upper()} ,")
    assert shouted != first
    out.write_text("\n".join([head, shouted, *others]) + "\n")
    assert len(pick(configure(flat, n=3, out=out)).classes) == len({row.split(",")[1] for row in (first, *others)})


def test_images_are_known_by_any_spelling_of_their_path_and_rows_of_others_stay(flat, tmp_path):
    (tmp_path / "lists").mkdir()
    names = sorted(path.name for path in flat.iterdir())
    text = "path,object\n" + "".join(f"../flat/{name},\n" for name in names)
    (tmp_path / "lists" / "all.csv").write_text(text)
    out = tmp_path / "picks.csv"
    pick(configure(tmp_path / "lists" / "all.csv", n=4, out=out))
    fill_in(out)
    shutil.copy(flat / names[0], tmp_path / "other.png")
    with out.open("a") as stream:
        stream.write("other.png,blue,,,\n")
    result = pick(configure(tmp_path / "lists" / "all.csv", n=4, out=out))
    assert (result.labelled, result.unlabelled) == (4, 44)
    assert any("1 row of" in note and "not counted" in note for note in result.notes)
    rows = read(out)
    assert len(rows) == 9
    assert rows[-1]["path"] == "other.png"


@pytest.mark.skipif(not (SHARED / "data/flowers12").is_dir(), reason="needs shared/ with photographs and weights")
def test_of_photographs_a_few_picks_show_every_class_once_where_random_ones_do_not(tmp_path, monkeypatch):
    """Ten pictures of each of six flowers, unlabelled: twelve picks of `auto`, with real weights and from the cache."""
    monkeypatch.setenv("TRANSFER_WEIGHTS", str(SHARED / "weights"))
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in FLOWERS:
        for file in sorted((SHARED / "data/flowers12/train" / name).iterdir())[:10]:
            shutil.copy(file, folder / f"{name}_{file.name}")
    config = PickConfig(ImagesConfig(str(folder)), n=12, backbone=BackboneConfig("mobilenetv2_100"), device="cpu")
    found = pick(config)
    assert {Path(each.path).name.split("_")[0] for each in found.images} == set(FLOWERS)
    assert pick(config) == found
    by_chance = [pick(replace(config, strategy="random", seed=seed)) for seed in range(5)]
    seen = [len({Path(each.path).name.split("_")[0] for each in result.images}) for result in by_chance]
    assert sum(seen) < 5 * len(FLOWERS)
