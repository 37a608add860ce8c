"""Hostile weights files."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .cases import CASES, NESTED, BadPickle, Workspace, train_argv


def weights_case(name: str, build: Callable[[Path], Any], message: str, suffix: str = ".pt") -> None:
    """Add a case: a weights file."""

    def build_argv(workspace: Workspace) -> list[str]:
        file = workspace.root / f"w{suffix}"
        build(file)
        return [*train_argv(workspace.data()), "--weights", str(file)]

    CASES[name] = build_argv, 2, message


def torch_save(value: Any, **how: Any) -> Callable[[Path], Any]:
    def save(path: Path) -> None:
        import torch

        torch.save(value, path, **how)

    return save


def header(text: str | bytes, size: int | None = None) -> Callable[[Path], Any]:
    raw = text.encode() if isinstance(text, str) else text
    return lambda p: p.write_bytes((len(raw) if size is None else size).to_bytes(8, "little") + raw)


def state(**changes: Any) -> Callable[[Path], Any]:
    def save(path: Path) -> None:
        from safetensors.torch import load_file, save_file

        from transfer.backbones.weight_paths import find_bundled_file

        tensors = load_file(find_bundled_file("glyphnet"))
        tensors = {name: changes.get("make", lambda t: t)(tensor) for name, tensor in tensors.items()}
        save_file(tensors, path)
        if "record" in changes:
            path.with_suffix(".json").write_text(changes["record"])

    return save


RECORD = {"input_size": [3, 32, 32], "mean": [0, 0, 0], "std": [1, 1, 1], "interpolation": "bilinear", "crop_pct": 1}
weights_case("a pickle that runs a command", lambda p: p.write_bytes(pickle.dumps(BadPickle())), "is not loaded")
weights_case("the same within a torch file", torch_save({"fc.weight": BadPickle()}), "unpickling runs code")
weights_case(
    "the same in torch's old format",
    torch_save({"a": BadPickle()}, _use_new_zipfile_serialization=False),
    "unpickling runs code",
)
weights_case(
    "a pickle called .safetensors",
    lambda p: p.write_bytes(pickle.dumps(BadPickle())),
    "cannot be read",
    ".safetensors",
)
weights_case("a pickle called .npz", lambda p: np.savez(p, a=np.array([BadPickle()], object)), "w.npz", ".npz")
weights_case("weights of zero bytes", lambda p: p.write_bytes(b""), "cannot be read")
weights_case("random bytes as weights", lambda p: p.write_bytes(np.random.default_rng(0).bytes(9999)), "w.pt")
weights_case("a header of 2^63 bytes", header("{}", 2**63), "cannot be read", ".safetensors")
weights_case("a header that nests 100,000 deep", header('{"a":' + NESTED), "cannot be read", ".safetensors")
weights_case(
    "a tensor of 2^60 numbers",
    header('{"a":{"dtype":"F32","shape":[1073741824,1073741824],"data_offsets":[0,4]}}'),
    "cannot be read",
    ".safetensors",
)
weights_case(
    "weights of other shapes", state(make=lambda t: t[:1].clone() if t.ndim else t), "of another shape", ".safetensors"
)
weights_case(
    "weights that are NaN",
    state(make=lambda t: t * float("nan") if t.is_floating_point() else t),
    "not finite",
    ".safetensors",
)
weights_case("a record that nests 100,000 deep", state(record=NESTED), "no preprocessing record", ".safetensors")
weights_case("a record that is a list", state(record="[]"), "no preprocessing record", ".safetensors")
weights_case(
    "a record of other types",
    state(record=json.dumps(RECORD | {"mean": "abc", "std": None})),
    "no preprocessing record",
    ".safetensors",
)
weights_case(
    "a record of absurd sizes",
    state(record=json.dumps(RECORD | {"input_size": [3, 10**9, 10**9]})),
    "no preprocessing record",
    ".safetensors",
)
weights_case(
    "a record with a crop of nothing",
    state(record=json.dumps(RECORD | {"crop_pct": 1e-300})),
    "no preprocessing record",
    ".safetensors",
)
weights_case(
    "a record with NaN",
    state(record=json.dumps(RECORD | {"mean": [float("nan")] * 3})),
    "no preprocessing record",
    ".safetensors",
)
