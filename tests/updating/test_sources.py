import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from shutil import copy

import imagehash
import numpy as np
import pytest
from PIL import Image

from transfer.config.commands import UpdateConfig
from transfer.data.corrections import Correction, CorrectionFile
from transfer.errors import TransferError
from transfer.heads import HeadSpec
from transfer.runs.image_list import ListedImage, write_image_list
from transfer.updating.sources import Source, read_corrections, read_new_images, read_old_images

SPECS = [HeadSpec("object", classes=("Blue", "red")), HeadSpec("domain", classes=("plain", "Striped"))]


def line_of(path: Path, label: str, domain: str = "plain", part: str = "train") -> ListedImage:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return {"path": str(path), "split": part, "sha256": digest, "object": label, "domain": domain}


@pytest.fixture
def old(folder: Path, tmp_path: Path) -> Path:
    """A run folder that lists two images of each of two classes, which lie in a folder of their own."""
    (tmp_path / "old").mkdir()
    lines = []
    for label, name in (("Blue", "blue"), ("red", "red")):
        for i in range(2):
            path = Path(copy(folder / "plain" / name / f"{i}.png", tmp_path / "old" / f"{name}{i}.png"))
            lines.append(line_of(path, label))
    (tmp_path / "run").mkdir()
    write_image_list(tmp_path / "run", lines)
    return tmp_path / "run"


def read(old: Path) -> Source:
    return read_old_images(UpdateConfig(old, add="unused"), None)


def test_old_images_are_those_of_the_list_with_their_hashes(old: Path) -> None:
    found = read(old)
    assert [image["object"] for image in found.images] == ["Blue", "Blue", "red", "red"]
    assert found.notes == ()
    # The images are smaller than the side at which hashes are made, so that no draft mode changes them.
    expected = [int(str(imagehash.phash(Image.open(image["path"]))), 16) for image in found.images]
    assert found.hashes.tolist() == expected


@pytest.mark.parametrize("fault", ["gone", "changed", "damaged"])
def test_an_old_image_that_is_not_what_it_was_is_refused_or_left_out(fault: str, old: Path, folder: Path) -> None:
    path = Path(read(old).images[1]["path"])
    if fault == "gone":
        path.unlink()
    elif fault == "changed":
        copy(folder / "plain" / "green" / "0.png", path)
    else:
        path.write_bytes(b"no image")
    with pytest.raises(TransferError, match=r"1 of 4 images .* are missing or have changed .*blue1\.png.*restore them"):
        read(old)
    found = read_old_images(UpdateConfig(old, add="unused", on_bad_image="skip"), None)
    assert [Path(image["path"]).name for image in found.images] == ["blue0.png", "red0.png", "red1.png"]
    assert len(found.hashes) == 3
    assert "blue1.png" in found.notes[0]


def test_a_run_of_which_every_image_is_gone_is_refused_even_if_bad_ones_are_skipped(old: Path) -> None:
    for image in read(old).images:
        Path(image["path"]).unlink()
    with pytest.raises(TransferError, match="4 of 4 images"):
        read_old_images(UpdateConfig(old, add="unused", on_bad_image="skip"), None)


def test_shards_are_refused(old: Path, tmp_path: Path) -> None:
    write_image_list(old, [image | {"path": f"{tmp_path}/set.tar::1.png@512+10"} for image in read(old).images])
    with pytest.raises(TransferError, match="tar shards"):
        read(old)


@pytest.fixture
def more(folder: Path, tmp_path: Path) -> Path:
    """New images in class folders: one class is spelled otherwise than in the run, one is new."""
    for name, source in (("BLUE", "blue"), ("green", "green")):
        (tmp_path / "more" / name).mkdir(parents=True)
        copy(folder / "plain" / source / "5.png", tmp_path / "more" / name / "5.png")
    return tmp_path / "more"


def test_new_images_have_names_as_the_run_spells_them(old: Path, more: Path) -> None:
    found = read_new_images(UpdateConfig(old, add=str(more)), str(more), read(old), SPECS, None)
    assert [(image["object"], image["domain"], image["split"]) for image in found.images] == [
        ("Blue", "plain", ""),
        ("green", "plain", ""),
    ]
    assert any("'BLUE' is read as 'Blue'" in note for note in found.notes)


@pytest.mark.parametrize(("given", "expected"), [(None, ""), ("striped", "Striped"), ("moon", "moon")])
def test_without_a_domain_folder_the_domain_is_the_given_one_or_unknown(
    given: str | None, expected: str, old: Path, more: Path
) -> None:
    source = read(old)
    source.images[0] |= {"domain": "Striped"}  # the run has two domains: neither is the only one
    found = read_new_images(UpdateConfig(old, add=str(more), domain=given), str(more), source, SPECS, None)
    assert {image["domain"] for image in found.images} == {expected}


def test_further_targets_that_the_new_images_lack_are_unknown_and_named(old: Path, more: Path) -> None:
    specs = [*SPECS, HeadSpec("age", "regression")]
    found = read_new_images(UpdateConfig(old, add=str(more)), str(more), read(old), specs, None)
    assert all("age" not in image for image in found.images)
    assert any("does not name age:regression" in note for note in found.notes)


@pytest.fixture
def decide(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes decisions of a review, each (path, sha256, new class, action)."""

    def write(*decisions: tuple[str, str, str, str]) -> Path:
        file = tmp_path / "labels.csv"
        for path, digest, new, action in decisions:
            CorrectionFile(file).append(Correction(path, digest, "", new, "2026-01-01T00:00:00Z", action))
        return file

    return write


def test_decisions_relabel_by_the_bytes_exclude_and_can_be_undone(old: Path, decide: Callable[..., Path]) -> None:
    source = read(old)
    digests = [image["sha256"] for image in source.images]
    file = decide(
        ("/moved.png", digests[0], "RED", "relabel"),
        ("/x.png", digests[1], "", "exclude"),
        ("/y.png", digests[2], "Blue", "relabel"),
        ("/y.png", digests[2], "", "undo"),
    )
    found, excluded = read_corrections(UpdateConfig(old, corrections=file), file, source, SPECS, None)
    assert [(image["sha256"], image["object"]) for image in found.images] == [(digests[0], "red")]
    assert excluded == {digests[1]}
    left = source.without(excluded)
    assert [image["sha256"] for image in left.images] == [digests[0], digests[2], digests[3]]
    assert left.hashes.tolist() == source.hashes[[0, 2, 3]].tolist()
    assert left.notes == ("1 image excluded by --corrections",)
    assert source.without(frozenset({"unknown"})) is source


def test_a_decision_on_another_image_adds_it_if_the_file_is_as_it_was(
    old: Path, folder: Path, decide: Callable[..., Path]
) -> None:
    there, gone = folder / "plain" / "green" / "3.png", folder / "plain" / "green" / "none.png"
    digest = hashlib.sha256(there.read_bytes()).hexdigest()
    file = decide((str(there), digest, "green", "relabel"), (str(gone), "0" * 64, "green", "relabel"))
    found, _ = read_corrections(UpdateConfig(old, corrections=file), file, read(old), SPECS, None)
    assert [(image["path"], image["object"]) for image in found.images] == [(str(there), "green")]
    assert found.hashes.tolist() == [int(str(imagehash.phash(Image.open(there))), 16)]
    assert any("1 correction not applied" in note for note in found.notes)


def test_a_manifest_corrects_too_and_excludes_nothing(old: Path, folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "new.csv"
    file.write_text(f"path,object\n{folder / 'plain' / 'red' / '0.png'},blue\n")
    config = UpdateConfig(old, corrections=file)
    found, excluded = read_corrections(config, file, read(old), SPECS, None)
    assert [image["object"] for image in found.images] == ["Blue"]
    assert excluded == frozenset()
    with pytest.raises(TransferError, match="--corrections: no file"):
        read_corrections(
            replace(config, corrections=tmp_path / "none.csv"), tmp_path / "none.csv", read(old), SPECS, None
        )
    assert np.issubdtype(found.hashes.dtype, np.uint64)
