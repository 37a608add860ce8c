"""The inputs of a run, which a resumed run must share: images, weights and split."""

from typing import Any

import numpy as np
import torch

from transfer.data.splits import Splits
from transfer.errors import TransferError
from transfer.feature_cache.key import fingerprint_weights
from transfer.model import TransferModel


class RunInputs:
    """Hashes of what a run is trained on.

    `backbone` is its name, `model` is untrained; `paths` and `digests` are the images' paths and sha256, str (N,).
    """

    def __init__(
        self, backbone: str, model: TransferModel, splits: Splits, paths: np.ndarray, digests: np.ndarray
    ) -> None:
        self.paths = paths
        raw = bytearray(bytes.fromhex("".join(digests.tolist())))
        self.now: dict[str, Any] = {
            "images": torch.frombuffer(raw, dtype=torch.uint8).reshape(-1, 32),
            f"the weights of {backbone}": fingerprint_weights(model, len(model.backbone.stages)),
            "the split of the images": [part.tolist() for part in (splits.train, splits.val, splits.test)],
        }

    def check(self, before: dict[str, Any]) -> None:
        """Raise a TransferError if images, weights or split changed since `before`, the saved ``now``."""
        changed = "changed since the run started: restore it, or start again with --overwrite"
        old, new = before["images"], self.now["images"]
        if len(old) != len(new):
            counts = f"the run started with {len(old)} images, but there are {len(new)} now"
            raise TransferError(f"--resume: {counts}: restore them, or start again with --overwrite")
        other = (old != new).any(1).numpy()
        if other.any():
            more = f" (and {int(other.sum()) - 1} more)" if other.sum() > 1 else ""
            raise TransferError(f"--resume: {self.paths[other][0]}{more} {changed}")
        for name, value in self.now.items():
            if name != "images" and before.get(name) != value:
                raise TransferError(f"--resume: {name} {changed}")
