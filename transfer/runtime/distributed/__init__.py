"""Several processes that run one command: ``torchrun --nproc-per-node N -m transfer train ...``.

All of them run the same code on the same draws. What is computed for every image (a frozen trunk, a trained tail) each
does for its part; what a batch as a whole decides (heads, losses, objectives) all do alike, on the features of all. The
first alone writes and speaks.
"""

from transfer.runtime.distributed.group import (
    Lost,
    agreed,
    cores,
    first,
    in_turn,
    launched,
    local,
    quiet,
    rank,
    same,
    same_bytes,
    say,
    together,
    wait,
    world,
)

__all__ = [
    "Lost",
    "agreed",
    "cores",
    "first",
    "in_turn",
    "launched",
    "local",
    "quiet",
    "rank",
    "same",
    "same_bytes",
    "say",
    "together",
    "wait",
    "world",
]
