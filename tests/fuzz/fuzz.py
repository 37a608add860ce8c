"""Fuzz the readers of external files with atheris (``pip install atheris``); run by hand, not by pytest.

::

    python tests/fuzz/fuzz.py READER [SECONDS] [FOLDER]

READER is a key of `READERS`. Inputs are grown in FOLDER/READER (default: the system's temporary folder) from a few
valid files, guided by coverage of this package. A reader may only raise TransferError, and may take at most five
seconds of processor time. Any other outcome is saved in FOLDER/READER/crashes, once for each line that raised it, and
printed in one line; fuzzing continues. Bugs that were found have regression tests beside the tests of their reader.
"""

import contextlib
import io
import json
import os
import shutil
import sys
import tempfile
import time
import traceback
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["transfer", "PIL"]):
    from transfer.backbones import weights as sources
    from transfer.config import checked, commands, serialise, train
    from transfer.config.adapt import AdaptConfig
    from transfer.data import folders
    from transfer.data.images import decode
    from transfer.data.images import read as pixels
    from transfer.data.manifests import csv_columns, manifest
    from transfer.data.sets import unpack
    from transfer.disk_cache import DiskCache, segment
    from transfer.errors import TransferError
    from transfer.runs import checkpoint as saved
    from transfer.runs import folder

import numpy as np
from PIL import Image

MAX_SECONDS = 5.0  # of processor time, which does not depend on other load
SCRATCH = Path(tempfile.mkdtemp(dir="/dev/shm" if os.path.isdir("/dev/shm") else None))


def _empty_folder(name: str) -> Path:
    place = SCRATCH / name
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    return place


def image(data: bytes) -> None:
    """Decode an image with both decoders."""
    for read in (lambda: decode.decode(io.BytesIO(data)), lambda: pixels.read_pixels(data, at_least=16)):
        with contextlib.suppress(decode.BadImage):
            read()


def table(data: bytes) -> None:
    """Read a CSV manifest, also with each column as a target."""
    file = SCRATCH / "table.csv"
    file.write_bytes(data)
    (SCRATCH / "a.png").touch()
    with contextlib.suppress(TransferError):
        manifest.is_manifest(file)
        extra = [name for name in csv_columns.read_csv(file).cells if name not in csv_columns.MANIFEST_COLUMNS]
        for targets in ([], extra, [f"{name}:regression" for name in extra], [f"{name}:binary" for name in extra]):
            with contextlib.suppress(TransferError):
                manifest.read_manifest(file, targets)


def tree(data: bytes) -> None:
    """Read a folder of files, folders, links and pipes; each line has kind, path and, for a link, its destination."""
    root = _empty_folder("tree")
    for line in data.split(b"\n")[:16]:
        kind, _, rest = line.partition(b" ")
        name, _, goal = rest.partition(b" ")
        parts = [part for part in name.split(b"/") if part not in (b"", b".", b"..")][:40]
        if not parts:
            continue
        path = os.path.join(os.fsencode(root), *parts)
        with contextlib.suppress(OSError, ValueError):
            above = [os.path.join(os.fsencode(root), *parts[:i]) for i in range(1, len(parts))]
            if any(map(os.path.islink, above)):
                continue  # it may lead out of the scratch folder
            os.makedirs(os.path.dirname(path), exist_ok=True)
            if kind == b"l":
                os.symlink(goal, path)
            elif kind == b"p":
                os.mkfifo(path)
            elif kind == b"d":
                os.mkdir(path)
            else:
                with open(path, "xb") as file:
                    file.write(goal)
    with contextlib.suppress(TransferError):
        folders.read_folder(root)


def settings(data: bytes) -> None:
    """Read config.json and metrics.jsonl of a resumed run, and each config from its JSON."""
    place = _empty_folder("run")
    first, _, second = data.partition(b"\0")
    (place / "config.json").write_bytes(first)
    (place / "metrics.jsonl").write_bytes(second or first)
    with contextlib.suppress(TransferError):
        folder.RunFolder(place, {"seed": 1}, resume=True).metrics()
    try:
        values = json.loads(first)
    except (ValueError, RecursionError):
        return
    for kind in (train.TrainConfig, train.HeadConfig, AdaptConfig, commands.SearchConfig, commands.PredictConfig):
        with contextlib.suppress(TransferError):
            checked.from_dict(kind, values)


def checkpoint(data: bytes) -> None:
    """Read a model.safetensors: all of its bytes, or valid tensors with another header."""
    file = SCRATCH / "model.safetensors"
    if data[:1] == b"{":
        from safetensors.torch import save_file

        with contextlib.suppress(UnicodeDecodeError):
            save_file(_valid_tensors(), file, metadata={"transfer": data.decode()})
    else:
        file.write_bytes(data[1:])
    with contextlib.suppress(TransferError):
        saved.load(file)


def weights(data: bytes) -> None:
    """Read a weights file, pickled or not, and the record beside it."""
    file = SCRATCH / ("w.safetensors" if data[:1] == b"s" else "w.pt")
    file.write_bytes(data[1:])
    (SCRATCH / "w.json").write_bytes(data[1:])
    for read in (sources.read_weights_file, sources.read_record_beside):
        with contextlib.suppress(TransferError):
            read(file)


def rows(data: bytes) -> None:
    """Read a segment of the cache and its about.json, alone and beside a valid segment."""
    store = DiskCache(_empty_folder("rows"))
    shelf = store.open_rows("features", {"weights": "1f3a"}, (2,), "float32")
    with shelf.open_writer() as writer:
        writer.append(["0" * 64], np.array([[1, 2]], "float32"))
    first, _, second = data.partition(b"\n\n")
    sealed = first + segment.compute_seal(shelf.key, first[8:])  # without it, the seal would reject nearly all
    (shelf.folder / "a.rows").write_bytes(first)
    (shelf.folder / "b.rows").write_bytes(sealed)
    (shelf.folder / "about.json").write_bytes(second)
    with contextlib.suppress(TransferError):
        store.list_entries()
        found = shelf.locate(["0" * 64, "f" * 64])
        found.take(np.flatnonzero(found.found))
        store.verify()


def archive(data: bytes) -> None:
    """Unpack a zip or tar archive."""
    file, room = SCRATCH / "archive", _empty_folder("unpacked")
    file.write_bytes(data)
    with contextlib.suppress(TransferError):
        unpack.unpack_archive(file, room / "here", keep=lambda name: name, limit=1 << 20)
    outside = [path for path in room.iterdir() if path.name != "here"]
    assert not outside, outside


READERS: dict[str, Callable[[bytes], None]] = {
    f.__name__: f for f in (image, table, tree, settings, checkpoint, weights, rows, archive)
}


def _valid_tensors() -> dict:
    from safetensors.torch import load_file, save_file  # noqa: F401

    if "tensors" not in _cached:
        _valid_checkpoint()
        _cached["tensors"] = load_file(SCRATCH / "valid.safetensors")
    return _cached["tensors"]


def _valid_checkpoint() -> tuple[bytes, str]:
    from safetensors import safe_open

    from transfer import backbones
    from transfer.heads import HeadSpec
    from transfer.model import TransferModel

    backbone = backbones.load("glyphnet", random_init=True)
    specs = [HeadSpec("object", "softmax", ("a", "b")), HeadSpec("size", "regression")]
    heads = train.HeadConfig()
    model = TransferModel(backbone, saved.build_heads(specs, backbone.width, heads))
    saved.save(SCRATCH / "valid.safetensors", {"": model}, heads)
    with safe_open(SCRATCH / "valid.safetensors", "pt") as opened:
        return (SCRATCH / "valid.safetensors").read_bytes(), opened.metadata()["transfer"]


_cached: dict = {}


def _images() -> Iterator[bytes]:
    rng = np.random.default_rng(0)
    for mode, form, how in (
        ("RGB", "PNG", {}),
        ("RGB", "JPEG", {}),
        ("CMYK", "JPEG", {}),
        ("P", "PNG", {"transparency": 3}),
        ("P", "GIF", {}),
        ("RGB", "WEBP", {}),
        ("RGBA", "WEBP", {"lossless": True}),
        ("I;16", "PNG", {}),
        ("F", "TIFF", {}),
        ("RGB", "TIFF", {"compression": "tiff_lzw"}),
        ("RGB", "BMP", {}),
        ("RGB", "ICO", {}),
        ("L", "PPM", {}),
        ("RGB", "TGA", {"rle": True}),
        ("L", "PCX", {}),
        ("RGB", "SGI", {}),
        ("1", "XBM", {}),
        ("RGBA", "DDS", {}),
        ("RGB", "JPEG2000", {}),
        ("P", "BLP", {}),
        ("RGB", "MPO", {}),
        ("RGB", "ICNS", {}),
    ):
        pixels = Image.fromarray(rng.integers(0, 255, (12, 9, 3), dtype=np.uint8))
        pixels = Image.fromarray(rng.integers(0, 65535, (12, 9), dtype=np.uint16)) if mode == "I;16" else pixels
        exif = Image.Exif()
        exif[274] = 6
        file = io.BytesIO()
        with contextlib.suppress(Exception):  # no encoder here
            pixels.convert(mode).save(file, form, **how, **({"exif": exif} if form in ("JPEG", "WEBP") else {}))
            yield file.getvalue()


def seeds(reader: str) -> Iterator[bytes]:
    """Yield a few valid inputs of a reader."""
    if reader == "image":
        yield from _images()
    elif reader == "table":
        yield b"path,object,domain,split,group,age,ok,note\na.png,cat,ink,train,g,1.5,yes,x\na.png,dog,,test,,,no,y\n"
        yield b'\xef\xbb\xbfpath,object\r\n"a.png","c ""a"" t"\r\n'
        yield "path,object\na.png,größe\n".encode("utf-16")
    elif reader == "tree":
        yield b"f train/a/1.png x\nf test/a/1.png x\nl train/b ../test/a\np test/a/2.png\nd train/c"
        yield b"f ink/a/1.png\nf paint/a/1.png\nf paint/b/x.txt\nl paint/up ..\nf ink/images/a/1.png"
        yield b"f m.csv path,object\nf a/1.jpg\nl a/2.jpg /dev/zero\nf a/\xff.jpg\nf a.jpg/b/c/d/e/f.png"
    elif reader == "settings":
        for kind in (train.TrainConfig, train.HeadConfig, AdaptConfig, commands.SearchConfig):
            yield json.dumps(serialise.to_dict(kind())).encode()
        yield b'{"seed": 1, "run": {"out": "x"}}\0{"epoch": 1, "loss": NaN}\n{"epoch": 2}\n'
        yield b"[" * 2000
    elif reader == "checkpoint":
        whole, header = _valid_checkpoint()
        yield header.encode()
        yield b"r" + whole[:4000]
        yield (
            b"r"
            + (80).to_bytes(8, "little")
            + b'{"__metadata__":{"transfer":"{}"},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
        )
    elif reader == "weights":
        import torch
        from safetensors.torch import save

        file = io.BytesIO()
        torch.save({"state_dict": {"fc.weight": torch.zeros(2, 2)}, "epoch": 3}, file)
        old = io.BytesIO()
        torch.save({"fc.weight": torch.zeros(2, 2)}, old, _use_new_zipfile_serialization=False)
        yield b"p" + file.getvalue()
        yield b"p" + old.getvalue()
        yield b"s" + save({"module.fc.weight": torch.zeros(2, 2)})
        record = {"input_size": [3, 8, 8], "mean": [0, 0, 0], "std": [1, 1, 1], "interpolation": "box", "crop_pct": 1}
        yield b"p" + json.dumps(record).encode()
    elif reader == "rows":
        store = DiskCache(_empty_folder("rows"))
        shelf = store.open_rows("features", {"weights": "1f3a"}, (2,), "float32")
        with shelf.open_writer() as writer:
            writer.append(["0" * 64, "f" * 64], np.array([[1, 2], [3, 4]], "float32"))
        (file,) = shelf.folder.glob("*.rows")
        about = (shelf.folder / "about.json").read_bytes()
        yield file.read_bytes() + b"\n\n" + about
        yield b"\0" * 8 + bytes(36) + b"\n\n" + about
    else:
        yield from _archives()


def _archives() -> Iterator[bytes]:
    import tarfile

    for how in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", how) as opened:
            opened.writestr("a/b.png", b"x" * 50)
            opened.writestr("../c", b"y")
        yield file.getvalue()
    for way in ("w", "w:gz", "w:bz2", "w:xz"):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode=way) as tar:
            for name, kind in (("a/b.png", tarfile.REGTYPE), ("l", tarfile.SYMTYPE), ("d", tarfile.CHRTYPE)):
                member = tarfile.TarInfo(name)
                member.type, member.linkname = kind, "../../x"
                tar.addfile(member)
        yield file.getvalue()


def main(reader: str, seconds: str = "600", place: str = tempfile.gettempdir() + "/fuzz") -> None:
    """Fuzz one reader for a number of seconds."""
    corpus, crashes = Path(place, reader, "corpus"), Path(place, reader, "crashes")
    for path in (corpus, crashes):
        path.mkdir(parents=True, exist_ok=True)
    for i, content in enumerate(seeds(reader)):
        (corpus / f"seed{i}").write_bytes(content)
    feed, seen = READERS[reader], set()

    def check(data: bytes) -> None:
        started = time.process_time()
        try:
            feed(data)
            what = None
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)
            ours = [f for f in last if "/transfer/" in f.filename] or last
            what = (
                f"{type(error).__name__} at {Path(ours[-1].filename).name}:{ours[-1].lineno} ({last[-1].name}): {error}"
            )
            key = (type(error), ours[-1].filename, ours[-1].lineno)
        took = time.process_time() - started
        if took > MAX_SECONDS:
            what, key = f"{took:.1f} s", ("slow", round(took))
        if what and key not in seen:
            seen.add(key)
            (crashes / f"{len(seen)}-{os.getpid()}").write_bytes(data)
            print(f"FOUND {what!r}", flush=True)

    options = [
        f"-max_total_time={seconds}",
        "-max_len=8192",
        "-timeout=60",
        "-rss_limit_mb=4096",
        "-print_final_stats=1",
    ]
    options.append(f"-artifact_prefix={crashes}/")
    sys.stderr.flush()
    atheris.Setup([sys.argv[0], *options, str(corpus)], check)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
