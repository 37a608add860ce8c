"""Parts of the tiny set as folders: the images of a run, and those that are added to it."""

import shutil
from collections.abc import Callable
from pathlib import Path


def copy_images(folder: Path, to: Path, wanted: Callable[[str, str, int], bool], layout: str = "{0}/{1}/{2}") -> Path:
    """Copy those images of the tiny set in `folder` that `wanted` accepts by domain, object and number; return `to`."""
    for file in sorted(folder.rglob("*.png")):
        domain, name, number = file.parts[-3], file.parts[-2], int(file.stem)
        if wanted(domain, name, number):
            copy = to / layout.format(domain, name, file.name)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
    return to


def read_files(folder: Path) -> dict[str, bytes]:
    """Return the bytes of each file below `folder`, by its path."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}
