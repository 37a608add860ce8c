"""Execute the notebooks and save their outputs: ``python tests/notebooks/execute.py [NAME...]``.

Without names it runs all; on Office-31 that takes minutes each. Pictures are reduced to 256 colours to keep the
files small. Execution times and other values that differ between runs are removed. The picture of a cell tagged
``image:NAME`` is also written to ``notebooks/images/NAME.png``, for the README files.
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
# Silences tqdm's warning about a missing widget package, and the kernel's log lines about its sockets.
ENVIRONMENT = {"PYTHONWARNINGS": "ignore:IProgress not found"}
QUIET = ["--log-level=ERROR"]
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def execute(path: Path, timeout: int = 3600, **environment: str) -> nbformat.NotebookNode:
    """Execute the notebook at `path` and return it with new outputs; raise on an error in a cell."""
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(path.parent)}}
    client = NotebookClient(notebook, timeout=timeout, record_timing=False, resources=resources)
    client.extra_arguments = QUIET
    client.execute(env=os.environ | ENVIRONMENT | environment)
    return notebook


def remove_run_details(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Return `notebook` without details that differ between runs, and with small pictures."""
    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            if "image/png" in output.get("data", {}):
                output.data["image/png"] = reduce_colours(output.data["image/png"])
    nbformat.validate(notebook)
    return notebook


def find_pictures(notebook: nbformat.NotebookNode) -> dict[str, bytes]:
    """Return the PNG of each cell tagged ``image:NAME``, by name."""
    found = {}
    for cell in notebook.cells:
        for tag in cell.metadata.get("tags", ()):
            if tag.startswith("image:"):
                (png,) = (output.data["image/png"] for output in cell.outputs if "image/png" in output.get("data", {}))
                found[tag.removeprefix("image:")] = base64.b64decode(png)
    return found


def reduce_colours(png: str) -> str:
    """Return a PNG (base64) reduced to a palette of `COLOURS`."""
    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    written = io.BytesIO()
    picture.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(written, "png", optimize=True)
    return base64.b64encode(written.getvalue()).decode()


if __name__ == "__main__":
    for name in sys.argv[1:] or sorted(path.stem for path in FOLDER.glob("*.ipynb")):
        started, path = time.perf_counter(), FOLDER / f"{name}.ipynb"
        notebook = remove_run_details(execute(path))
        path.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")
        for image, png in find_pictures(notebook).items():
            (FOLDER / "images" / f"{image}.png").write_bytes(png)
        print(f"{name}: {time.perf_counter() - started:.0f} s, {path.stat().st_size / 1000:.0f} kB")
