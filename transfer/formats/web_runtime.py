"""onnxruntime-web, which computes in the browser: from npm, or from a folder or archive of its package."""

import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from transfer.errors import TransferError, get_first_line

RUNTIME_VERSION = "1.30.0"  # that the page is tested with
NPM_SECONDS = 300  # for a download of 33 MB


@dataclass(frozen=True)
class WebRuntime:
    """Files of onnxruntime-web by name, none if it is not there, and a note on where they come from."""

    names: ClassVar = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")

    files: dict[str, bytes]
    note: str


def read_web_runtime(package: Path | None) -> WebRuntime:
    """Return the files of onnxruntime-web in `package`, a folder or .tgz; of the one that npm downloads if it is None.

    Without npm, or a network, there are no files, and the note says what to do.

    Raises
    ------
    TransferError
        `package` is not there, or has other files.
    """
    if package is not None:
        return WebRuntime(_read_package(package), f"ort/: onnxruntime-web from {package}")
    npm = shutil.which("npm")
    missing = f"ort/ is empty ({{}}): copy onnxruntime-web {RUNTIME_VERSION} there, as README.txt says"
    if npm is None:
        return WebRuntime({}, missing.format("npm is not installed"))
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", f"onnxruntime-web@{RUNTIME_VERSION}", "--silent", "--pack-destination", folder]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=NPM_SECONDS, cwd=folder)
            (archive,) = Path(folder).glob("*.tgz")
        except (subprocess.SubprocessError, OSError, ValueError) as error:
            reason = (getattr(error, "stderr", None) or get_first_line(error)).strip().splitlines()[0]
            return WebRuntime({}, missing.format(f"npm failed: {reason}"))
        return WebRuntime(_read_package(archive), f"ort/: onnxruntime-web {RUNTIME_VERSION} from npm, MIT licence")


def _read_package(package: Path) -> dict[str, bytes]:
    try:
        if package.is_dir():
            folder = package / "dist" if (package / "dist").is_dir() else package
            return {name: (folder / name).read_bytes() for name in WebRuntime.names}
        with tarfile.open(package) as archive:
            members = {name: archive.extractfile(f"package/dist/{name}") for name in WebRuntime.names}
            return {name: member.read() for name, member in members.items() if member}
    except (OSError, KeyError, tarfile.TarError) as error:
        raise TransferError(
            f"--web-runtime {package}: not the npm package onnxruntime-web, a folder or .tgz: {get_first_line(error)}"
        ) from error
