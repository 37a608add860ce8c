"""Frozen stages compiled for an engine: exported once, compared with torch, and cached on disk."""

import contextlib
import hashlib
import importlib.metadata
import logging
import os
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from transfer.backbones.backbone import Backbone, hash_tensors
from transfer.backbones.engines.chunks import count_chunk_images
from transfer.backbones.engines.graph import export_stages
from transfer.backbones.engines.onnxruntime_engine import OnnxRuntimeEngine
from transfer.backbones.engines.openvino_engine import OpenVinoEngine
from transfer.backbones.engines.quantise import QUANTISATION_VERSION, quantise, simplify
from transfer.backbones.engines.torch_compile import COMPILE, compile_with_torch, explain
from transfer.disk_cache.folder import hash_record, list_files, remove_file
from transfer.errors import TransferError, get_first_line
from transfer.runtime import distributed
from transfer.runtime.files import atomic_write, get_cache_folder, read_json, write_json

log = logging.getLogger(__name__)

ENGINES: dict[str, Callable[[bytes, int], Callable[[np.ndarray], np.ndarray]]] = {
    "onnxruntime": OnnxRuntimeEngine,
    "openvino": OpenVinoEngine,
}
ENGINE_PACKAGES = {"int8": "onnxruntime", COMPILE: "torch"}  # what runs an engine of another name
GRAPH_VERSION = 1  # bump when the exported graph changes; part of the cache key
# Largest difference from torch's output, relative to its largest value. Rounding alone reaches 1e-5.
MAX_ENGINE_ERROR = 1e-4
MAX_GRAPH_BYTES = 2 << 30  # of all cached graphs; those that were used least recently are removed first


@dataclass(frozen=True)
class StagesKey:
    """Everything that compiled stages depend on."""

    engine: str
    versions: tuple[str, ...]  # of the engine, of torch and of our rules
    processor: str
    architecture: str  # sha256
    weights: str  # sha256
    cut: int
    start: int
    shape: tuple[int, ...]  # of one input, without the batch
    calibration: str = ""  # of int8: the sha256 of its ranges, and the version of our rules
    images: int = 1  # that pass together

    @classmethod
    def of(
        cls, backbone: Backbone, engine: str, cut: int, start: int, shape: tuple[int, ...], chunk: int | None = None
    ) -> "StagesKey":
        """Return the key of the stages of `backbone` from the cut `start` to `cut`.

        `chunk` is the number of images that pass torch.compile together (default: as many as on torch).
        """
        device = next(backbone.parameters()).device
        tensors = chain(backbone.network.named_parameters(), backbone.network.named_buffers())
        original = backbone.original_classifier
        head = hash_tensors(original.state_dict().items()) if original else ""
        code = re.sub(r" at 0x[0-9a-f]+", "", repr(backbone.network))
        calibration = backbone.calibration if engine == "int8" else None
        about = repr((type(backbone).__name__, backbone.name, backbone.code_digest, backbone.output_kind, head, code))
        return cls(
            engine,
            (describe_version(engine), torch.__version__, str(GRAPH_VERSION)),
            torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability(),
            hashlib.sha256(about.encode()).hexdigest(),
            hash_tensors((name, tensor) for name, tensor in tensors if backbone.stage_of(name) < cut),
            cut,
            start,
            tuple(shape),
            f"{calibration.digest}, rules {QUANTISATION_VERSION}" if calibration else "",
            (chunk or count_chunk_images(device.type)) if engine == COMPILE else 1,
        )

    @property
    def file(self) -> Path:
        """The file of the graph; beside it, with the suffix .json, what was found out about it."""
        return get_cache_folder("engines", f"{self.digest[:32]}.onnx")

    @property
    def digest(self) -> str:
        """A digest of all fields but those that are as they always were in earlier versions."""
        defaults = (("calibration", ""), ("images", 1))
        return hash_record({name: value for name, value in asdict(self).items() if (name, value) not in defaults})


@dataclass(frozen=True)
class CompiledStages:
    """Frozen stages, ready to run by several threads.

    They are called with a fixed number of `images`, or activations, (images, ...), and return the activations at the
    cut.
    """

    run: Callable[[Tensor], Tensor]
    images: int = 1

    def __call__(self, x: Tensor) -> Tensor:
        """Return the activations at the cut of `x`."""
        return self.run(x)


_verdicts: dict[StagesKey, str] = {}  # why stages run on torch; empty where they do not
_latest: dict[StagesKey, CompiledStages] = {}  # those that torch.compile made last, which takes seconds


def describe_version(engine: str) -> str:
    """Return the installed version of an `engine`, or an empty string; imports nothing."""
    try:
        return importlib.metadata.version(ENGINE_PACKAGES.get(engine, engine))
    except importlib.metadata.PackageNotFoundError:
        return ""


def is_compiled(backbone: Backbone, key: StagesKey) -> bool:
    """Return whether the stages of `key` run on its engine as on torch; found out once, and cached on disk."""
    if key not in _verdicts and not _read_verdict(key):
        compile_stages(backbone, key)
    return not _verdicts[key]


def compile_stages(backbone: Backbone, key: StagesKey, *, store: bool = True) -> CompiledStages | None:
    """Return the stages of `key`, from the cache or exported now; None where torch must run them, which is logged.

    Parameters
    ----------
    backbone : Backbone
        Left unchanged.
    key : StagesKey
    store : bool
        Cache the graph on disk.
    """
    if _read_verdict(key) and _verdicts[key]:
        _use_torch(backbone, key)
        return None
    if key.engine == COMPILE:
        return _compile_by_torch(backbone, key, store=store)
    if key in _verdicts:
        with contextlib.suppress(Exception):  # damaged: exported again
            graph = key.file.read_bytes()
            if hashlib.sha256(graph).hexdigest() == read_json(key.file.with_suffix(".json"))["sha256"]:
                os.utime(key.file)
                return CompiledStages(_start(key, graph))
    examples = torch.randn((2, *key.shape), generator=torch.Generator().manual_seed(0))
    examples[1] = examples[1] / 3 + 1  # unlike the traced one, whose values a graph must not depend on
    try:
        graph, expected = export_stages(backbone, key.cut, key.start, examples)
        compiled = CompiledStages(_start(key, graph))
        found = torch.cat([compiled(example) for example in examples.split(1)])
        error = float((found - expected).abs().max() / expected.abs().max())
        reason = "" if error <= MAX_ENGINE_ERROR else f"its output differs by {error:.1g} of the largest value"
        if key.calibration and not reason:
            assert backbone.calibration  # the key has its digest
            graph = quantise(simplify(graph), backbone.calibration.ranges)
            compiled = CompiledStages(_start(key, graph))
            reason = "" if compiled(examples[:1]).isfinite().all() else "its output is not finite"
    except (MemoryError, ImportError) as failure:  # may succeed another time
        _verdicts[key] = get_first_line(failure)
        _use_torch(backbone, key)
        return None
    except Exception as failure:  # each network fails in its own way
        graph, error, reason = b"", 0.0, get_first_line(failure)
    _verdicts[key] = reason
    if store:
        _store(key, b"" if reason else graph, {"reason": reason, "error": error})
    if reason:
        _use_torch(backbone, key)
        return None
    return compiled


def clear_graphs() -> tuple[int, int]:
    """Remove all cached graphs; return their number and bytes."""
    files = list_files(get_cache_folder("engines"), "*.onnx")
    for file in get_cache_folder("engines").glob("*.json"):
        file.unlink(missing_ok=True)
    removed = [size for _, size, file in files if remove_file(file)]
    return len(removed), sum(removed)


def _start(key: StagesKey, graph: bytes) -> Callable[[Tensor], Tensor]:
    run = ENGINES[ENGINE_PACKAGES.get(key.engine, key.engine)](graph, distributed.count_cores_per_process())
    return lambda x: torch.from_numpy(run(x.contiguous().numpy()))


def _compile_by_torch(backbone: Backbone, key: StagesKey, *, store: bool) -> CompiledStages | None:
    """Return the stages of `key` compiled by torch.compile, which caches its kernels itself."""
    if key in _latest:
        return _latest[key]
    try:
        run, error = compile_with_torch(backbone, key.cut, key.start, (key.images, *key.shape))
    except Exception as failure:  # may succeed another time, with a C++ compiler
        _verdicts[key] = explain(failure)
        _use_torch(backbone, key)
        return None
    _verdicts[key] = "" if error <= MAX_ENGINE_ERROR else f"its output differs by {error:.1g} of the largest value"
    if store:
        _store(key, b"", {"reason": _verdicts[key], "error": error})
    if _verdicts[key]:
        _use_torch(backbone, key)
        return None
    _latest.clear()
    return _latest.setdefault(key, CompiledStages(run, key.images))


def _use_torch(backbone: Backbone, key: StagesKey) -> None:
    log.info("%s runs on torch, not on %s: %s", backbone.name, key.engine, _verdicts[key])


def _read_verdict(key: StagesKey) -> bool:
    """Return whether it is known if the stages of `key` run on their engine."""
    if key not in _verdicts:
        with contextlib.suppress(TransferError):
            found: dict[str, Any] = read_json(key.file.with_suffix(".json"))
            if isinstance(found.get("reason"), str) and found.get("key") == key.digest:
                _verdicts[key] = found["reason"]
    return key in _verdicts


def _store(key: StagesKey, graph: bytes, found: dict[str, Any]) -> None:
    """Write the graph and what was found out about it; nothing where the disk is full or cannot be written."""
    with contextlib.suppress(TransferError):
        files = list_files(key.file.parent, "*.onnx")
        excess = sum(size for _, size, _ in files) + len(graph) - MAX_GRAPH_BYTES
        for _, size, file in files:
            if excess > 0 and file != key.file and remove_file(file):
                file.with_suffix(".json").unlink(missing_ok=True)
                excess -= size
        if graph:
            with atomic_write(key.file) as temporary:
                temporary.write_bytes(graph)
        about = {"key": key.digest, "sha256": hashlib.sha256(graph).hexdigest(), **found}
        write_json(key.file.with_suffix(".json"), about)
