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

    Parameters
    ----------
    backbone : str
        Its name.
    model : TransferModel
        Before training.
    splits : Splits
    paths, digests : ndarray of str, shape (N,)
        Paths and sha256 of the images.
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
        """Raise if images, weights or split changed since the saved state.

        Parameters
        ----------
        before : dict
            The saved ``now``.

        Raises
        ------
        TransferError
            Names what changed.
        """
        changed = "changed since the run started: restore it, or start again with --overwrite"
        old, new = before["images"], self.now["images"]
        if len(old) != len(new):
            raise TransferError(
                f"--resume: the run started with {len(old)} images, but there are {len(new)} now: restore them, or "
                "start again with --overwrite"
            )
        other = (old != new).any(1).numpy()
        if other.any():
            more = f" (and {int(other.sum()) - 1} more)" if other.sum() > 1 else ""
            raise TransferError(f"--resume: {self.paths[other][0]}{more} {changed}")
        for name, value in self.now.items():
            if name != "images" and before.get(name) != value:
                raise TransferError(f"--resume: {name} {changed}")
