"""One command in several processes: ``torchrun --nproc-per-node N -m transfer train ...``.

Every process runs the same code with the same random draws. Work per image (frozen trunk, trained tail) is divided
among the processes; work per batch (heads, losses) is repeated in each, on the features of all rows. Rank 0 alone
writes files and prints.
"""

from transfer.runtime.distributed.group import (
    ProcessLost,
    any_rank,
    broadcast,
    broadcast_bytes,
    count_cores_per_process,
    get_local_rank,
    get_local_world_size,
    get_rank,
    get_world_size,
    is_launched,
    is_rank_zero,
    join_process_group,
    local_rank_zero_first,
    print_once,
    silence_other_ranks,
    wait_for_all,
)

__all__ = [
    "ProcessLost",
    "any_rank",
    "broadcast",
    "broadcast_bytes",
    "count_cores_per_process",
    "get_local_rank",
    "get_local_world_size",
    "get_rank",
    "get_world_size",
    "is_launched",
    "is_rank_zero",
    "join_process_group",
    "local_rank_zero_first",
    "print_once",
    "silence_other_ranks",
    "wait_for_all",
]
