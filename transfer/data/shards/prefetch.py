"""Read files and shard members in a known order; remote neighbours share a request and are fetched ahead of use."""

import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from transfer.data.shards.address import Member, check_member, fetch_bytes, parse_address, read_member

MAX_REQUEST_BYTES = 4 << 20  # of one request for neighbours
MAX_GAP_BYTES = 64 << 10  # between two neighbours of one request (labels, for example)
MAX_PENDING_REQUESTS = 8  # requests with unused images: at most 32 MiB, unless images are larger


class Contents:
    """Contents of `paths`, in the order of use.

    Parameters
    ----------
    paths : sequence of str
        File paths, or addresses of members (`transfer.data.shards.address`).
    order : ndarray of int64, optional
        Indices into `paths` in the order of reading (default: all, in order).
    """

    def __init__(self, paths: Sequence[str] | np.ndarray, order: np.ndarray | None = None) -> None:
        self.paths, self.order = paths, order
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._planned = 0  # places before this one are requested
        self._waiting: dict[int, tuple[int, Future[bytes]]] = {}  # by place: a request and its first byte
        self._unused: Counter[Future[bytes]] = Counter()

    def __len__(self) -> int:
        return len(self.paths if self.order is None else self.order)

    def path(self, place: int) -> str:
        """Return the path or address at `place` of the order."""
        return str(self.paths[place if self.order is None else self.order[place]])

    def __getitem__(self, place: int) -> str | bytes:
        """Return the path of a file, or the bytes of a member. Thread-safe.

        Raises
        ------
        TransferError
            The member cannot be read; names member and shard.
        """
        path = self.path(place)
        member = parse_address(path)
        if member is None:
            return path
        if not member.remote:
            return read_member(member)
        with self._lock:
            self._plan(place)
            found = self._waiting.pop(place, None)
            if found is None:  # read a second time
                return read_member(member)
            start, request = found
            self._unused[request] -= 1
            if not self._unused[request]:
                del self._unused[request]
        first, end = member.span
        return check_member(member, request.result()[first - start : end - start])

    def close(self) -> None:
        """Stop fetching."""
        if self._pool:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def _plan(self, place: int) -> None:
        """Request what comes next, at least up to `place`."""
        while self._planned < len(self) and (self._planned <= place or len(self._unused) < MAX_PENDING_REQUESTS):
            neighbours: list[tuple[int, Member]] = []
            while self._planned < len(self):
                member = parse_address(self.path(self._planned))
                if member and member.remote:
                    if neighbours and not _adjoins(neighbours[0][1], neighbours[-1][1], member):
                        break
                    neighbours.append((self._planned, member))
                elif neighbours:
                    break
                self._planned += 1
            if neighbours:
                self._request(neighbours)

    def _request(self, neighbours: list[tuple[int, Member]]) -> None:
        from transfer.data.shards.remote import MAX_CONNECTIONS

        self._pool = self._pool or ThreadPoolExecutor(MAX_CONNECTIONS)
        start, end = neighbours[0][1].span[0], neighbours[-1][1].span[1]
        request = self._pool.submit(fetch_bytes, neighbours[0][1], start, end - start)
        self._unused[request] = len(neighbours)
        for place, _ in neighbours:
            self._waiting[place] = start, request


def _adjoins(first: Member, last: Member, member: Member) -> bool:
    """Return whether `member` fits into one request with its neighbours `first` to `last`."""
    start, end = member.span
    near = member.shard == first.shard and 0 <= start - last.span[1] <= MAX_GAP_BYTES
    return near and end - first.span[0] <= MAX_REQUEST_BYTES
