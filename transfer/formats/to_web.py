"""A folder for a web server: a page that classifies images in the browser, with the model and all that it loads."""

from pathlib import Path

from transfer.formats.portable import ExportSource, PreparedExport
from transfer.formats.record import dump_description
from transfer.formats.to_onnx import build_onnx, predict_onnx
from transfer.formats.web_runtime import RUNTIME_VERSION, read_web_runtime
from transfer.runtime.files import atomic_write

PAGE_FILES = Path(__file__).parent / "web"  # the files of the page
FOLDER_README = """\
A page that classifies images in the browser. No image leaves the computer, and nothing else is loaded.

Serve this folder: python -m http.server --bind 127.0.0.1 --directory .
Then open http://127.0.0.1:8000/

ort/ has three files of the npm package onnxruntime-web (MIT licence, Microsoft Corporation), version {version}:
{files}
If they are missing: npm pack onnxruntime-web@{version}, and copy them from dist/.
"""


def to_web(source: ExportSource) -> PreparedExport:
    """Return the run as a folder with a static page, the ONNX model and its description, and onnxruntime-web.

    Without npm and ``source.web_runtime``, onnxruntime-web is left out, and a note says how to add it.

    Raises
    ------
    TransferError
        A package is missing, or ``source.web_runtime`` is not onnxruntime-web.
    """
    runtime = read_web_runtime(source.web_runtime)
    content = build_onnx(source, "web")
    files = {path.name: path.read_bytes() for path in sorted(PAGE_FILES.iterdir()) if path.is_file()}
    files |= {"model.onnx": content, "model.json": dump_description(source.about, indent=1).encode()}
    files |= {f"ort/{name}": part for name, part in runtime.files.items()}
    listed = "\n".join(f"  {name}" for name in runtime.names)
    files["README.txt"] = FOLDER_README.format(version=RUNTIME_VERSION, files=listed).encode()

    def write(out: Path) -> list[Path]:
        for name, part in files.items():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(out / name) as temporary:
                temporary.write_bytes(part)
        return [out / name for name in files]

    return PreparedExport(write, predict_onnx(content, source.images), [runtime.note])
