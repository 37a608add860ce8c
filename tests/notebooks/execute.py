"""Execute the notebooks anew and keep what they put out: ``python tests/notebooks/execute.py [NAME...]``.

Without names all six: on Office-31 that is minutes each. Pictures are reduced to 256 colours, so that the files stay
small; execution times and anything else that differs from run to run are left out. What a cell tagged ``image:NAME``
shows is also written to ``notebooks/images/NAME.png``, for README.
"""

import base64
import io
import os
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image

FOLDER = Path(__file__).parents[2] / "notebooks"
COLOURS = 256
# tqdm says on import that it would like a package for its widgets; --log-level: the kernel's words about its sockets.
ENVIRONMENT = {"PYTHONWARNINGS": "ignore:IProgress not found"}
QUIET = ["--log-level=ERROR"]
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def execute(path: Path, timeout: int = 3600, **environment: str) -> nbformat.NotebookNode:
    """Return the notebook at `path` with new outputs; an error in a cell is raised."""
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(path.parent)}}
    client = NotebookClient(notebook, timeout=timeout, record_timing=False, resources=resources)
    client.extra_arguments = QUIET
    client.execute(env=os.environ | ENVIRONMENT | environment)
    return notebook


def tidied(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Return `notebook` without what differs from run to run, its pictures small."""
    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            if "image/png" in output.get("data", {}):
                output.data["image/png"] = small(output.data["image/png"])
    nbformat.validate(notebook)
    return notebook


def pictures(notebook: nbformat.NotebookNode) -> dict[str, bytes]:
    """Return the PNG that each cell tagged ``image:NAME`` shows, by that name."""
    found = {}
    for cell in notebook.cells:
        for tag in cell.metadata.get("tags", ()):
            if tag.startswith("image:"):
                (png,) = (output.data["image/png"] for output in cell.outputs if "image/png" in output.get("data", {}))
                found[tag.removeprefix("image:")] = base64.b64decode(png)
    return found


def small(png: str) -> str:
    """Return a PNG (base64) with a palette."""
    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    written = io.BytesIO()
    picture.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(written, "png", optimize=True)
    return base64.b64encode(written.getvalue()).decode()


if __name__ == "__main__":
    for name in sys.argv[1:] or sorted(path.stem for path in FOLDER.glob("*.ipynb")):
        began, path = time.perf_counter(), FOLDER / f"{name}.ipynb"
        notebook = tidied(execute(path))
        path.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")
        for image, png in pictures(notebook).items():
            (FOLDER / "images" / f"{image}.png").write_bytes(png)
        print(f"{name}: {time.perf_counter() - began:.0f} s, {path.stat().st_size / 1000:.0f} kB")
