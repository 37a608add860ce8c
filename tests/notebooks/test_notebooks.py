"""The notebooks run on the bundled digits; their committed outputs are small and show no photograph or local path."""

import base64
import io
import re
import runpy
import shutil
from pathlib import Path

import nbformat
import numpy as np
import pytest
from PIL import Image
from studies.plots import draw_curves

ROOT = Path(__file__).parents[2]
PATHS = sorted((ROOT / "notebooks").glob("*.ipynb"))
EXECUTE = runpy.run_path(str(Path(__file__).with_name("execute.py")))
# Two or more names after a leading slash.
ABSOLUTE = re.compile(r"(?<![\w./])(?:[A-Za-z]:\\|/[\w.~-]+/)[\w.-]")
NUMBERS = ["00", "01", "02", "03", "04", "05", "06"]

by_notebook = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


def outputs(path: Path):
    """Each output of a notebook, with its cell."""
    for cell in nbformat.read(path, as_version=4).cells:
        for output in cell.get("outputs", ()):
            yield cell, output


def pictures(path: Path):
    for cell, output in outputs(path):
        for kind, data in output.get("data", {}).items():
            if kind.startswith("image/"):
                yield cell, kind, data


def share_of_commonest_colour(picture: Image.Image) -> float:
    pixels = np.asarray(picture.convert("RGB"), np.int64).reshape(-1, 3) @ [65536, 256, 1]
    return np.unique(pixels, return_counts=True)[1].max() / len(pixels)


def test_all_are_there():
    assert [path.name[:2] for path in PATHS] == NUMBERS


def draw_fewer(path: Path, folder: Path) -> Path:
    """Return a copy of a notebook that draws 12 images of each thing in place of 30, beside a copy of the recipes."""
    source = path.read_text(encoding="utf-8")
    assert source.count("draw_things(Path(FOLDER))") == 1
    shutil.copytree(ROOT / "recipes", folder / "recipes")
    copy = folder / "notebooks" / path.name
    copy.parent.mkdir()
    copy.write_text(source.replace("draw_things(Path(FOLDER))", "draw_things(Path(FOLDER), 12)"), encoding="utf-8")
    return copy


@by_notebook
def test_runs_on_the_embedded_set(path, tmp_path):
    """Cells raise no error, and those with a committed output have one here."""
    before = {cell.id: bool(cell.outputs) for cell in nbformat.read(path, as_version=4).cells if "outputs" in cell}
    path = draw_fewer(path, tmp_path) if path.name.startswith("00") else path
    notebook = EXECUTE["execute"](path, timeout=300, TRANSFER_NOTEBOOK_DATA="digits")
    after = {cell.id: bool(cell.outputs) for cell in notebook.cells if "outputs" in cell}
    assert after == before


@by_notebook
def test_is_committed_as_it_ran(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata == EXECUTE["METADATA"]  # no widgets and no local versions
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert all(set(cell.metadata) <= {"tags"} for cell in notebook.cells)
    kinds = {output.output_type for _, output in outputs(path)}
    assert kinds <= {"stream", "display_data", "execute_result"}
    assert {output.name for _, output in outputs(path) if output.output_type == "stream"} <= {"stdout"}


@by_notebook
def test_names_no_folder(path):
    for _, output in outputs(path):
        text = output.get("text", "") + output.get("data", {}).get("text/plain", "")
        assert not ABSOLUTE.search(text), text
    assert not re.search(r"/(home|root|Users|tmp|work)/", path.read_text(encoding="utf-8"))


@by_notebook
def test_shows_no_photograph(path):
    """Pictures are plots, mostly background, except in a cell tagged as showing bundled digits or drawn images."""
    drawn = any("the images are drawn by code" in output.get("text", "") for _, output in outputs(path))
    for cell, kind, data in pictures(path):
        assert kind == "image/png"
        if "digits" in cell.metadata.get("tags", ()):
            assert 'load_table("digits")' in cell.source
        elif "drawn" in cell.metadata.get("tags", ()):
            assert drawn
        else:
            assert share_of_commonest_colour(Image.open(io.BytesIO(base64.b64decode(data)))) > 0.5


SCREENS = {"demo", "report"}  # of the command line and of a report page, both of the bundled digits


def test_pictures_of_the_readmes_are_those_of_the_notebooks():
    shown = {}
    for path in PATHS:
        shown |= EXECUTE["find_pictures"](nbformat.read(path, as_version=4))
    images = {path.stem: path.read_bytes() for path in (ROOT / "notebooks" / "images").iterdir()}
    assert {name: images[name] for name in images.keys() - SCREENS} == shown
    folders = (ROOT / folder for folder in ("transfer", "recipes"))
    readmes = [ROOT / "README.md", *(path for folder in folders for path in folder.rglob("README.md"))]
    text = "".join(path.read_text(encoding="utf-8") for path in readmes)
    assert all(f"notebooks/images/{name}.png" in text for name in images)


def test_a_photograph_would_be_seen():
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    plot = np.full_like(noise, 255)
    plot[:10] = noise[:10]
    assert share_of_commonest_colour(Image.fromarray(noise)) < 0.5 < share_of_commonest_colour(Image.fromarray(plot))


@pytest.mark.parametrize("text", ["/home/ann/images", r"C:\Users\ann", "saved in /data/runs/1", "('/mnt/x/a.png')"])
def test_a_folder_would_be_seen(text):
    assert ABSOLUTE.search(text)


@pytest.mark.parametrize("text", ["memory / parameters", "images/s", "office31/dslr", "p 0.5/0.4", "1 / 2 / 3"])
def test_no_folder_is_seen_where_none_is(text):
    assert not ABSOLUTE.search(text)


def test_small_enough():
    sizes = [path.stat().st_size for path in PATHS]
    assert max(sizes) < 400_000
    assert sum(sizes) < 2_000_000


def test_pictures_are_made_small_and_stay_what_they_are():
    written = io.BytesIO()
    draw_curves(None, {"loss": {"sgd": [2.0, 1.0, 0.5], "adam": [1.5, 0.6, 0.4]}}, x="epoch", y="loss").savefig(written)
    pixels = np.asarray(Image.open(written).convert("RGB"), float)
    small = base64.b64decode(EXECUTE["reduce_colours"](base64.b64encode(written.getvalue()).decode()))
    reduced = np.asarray(Image.open(io.BytesIO(small)).convert("RGB"), float)
    assert len(small) < len(written.getvalue()) / 2
    assert np.abs(reduced - pixels).mean() < 1
