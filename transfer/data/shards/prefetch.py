"""Files and members of shards, read in about a known order: from the web neighbours at once, and ahead of use."""

import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from transfer.data.shards.address import Member, checked, content, fetch, parse

SPAN = 4 << 20  # bytes of one request for neighbours
GAP = 64 << 10  # bytes between two neighbours, labels for example, that are fetched with them
AHEAD = 8  # requests whose images are not used yet: 32 MiB at most, but for larger images


class Contents:
    """What to read of each of `paths`.

    Parameters
    ----------
    paths : sequence of str
        Of files, or addresses of members (`transfer.data.shards.address`).
    order : ndarray of int64, optional
        Places in `paths`, in the order in which they are about to be read (default: as they are).
    """

    def __init__(self, paths: Sequence[str] | np.ndarray, order: np.ndarray | None = None) -> None:
        self.paths, self.order = paths, order
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._planned = 0  # places before this one have been asked for
        self._waiting: dict[int, tuple[int, Future[bytes]]] = {}  # by place: a request, and its first byte
        self._unused: Counter[Future[bytes]] = Counter()

    def __len__(self) -> int:
        return len(self.paths if self.order is None else self.order)

    def path(self, place: int) -> str:
        """Return the path or address at `place` of the order."""
        return str(self.paths[place if self.order is None else self.order[place]])

    def __getitem__(self, place: int) -> str | bytes:
        """Return the path of a file, or the bytes of a member. Any thread may ask.

        Raises
        ------
        TransferError
            The member cannot be read; names it and its shard.
        """
        path = self.path(place)
        member = parse(path)
        if member is None:
            return path
        if not member.remote:
            return content(member)
        with self._lock:
            self._plan(place)
            found = self._waiting.pop(place, None)
            if found is None:  # asked for again
                return content(member)
            start, request = found
            self._unused[request] -= 1
            if not self._unused[request]:
                del self._unused[request]
        first, end = member.span
        return checked(member, request.result()[first - start : end - start])

    def close(self) -> None:
        """Ask for nothing more."""
        if self._pool:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def _plan(self, place: int) -> None:
        """Ask for what comes next, up to `place` at least."""
        while self._planned < len(self) and (self._planned <= place or len(self._unused) < AHEAD):
            neighbours: list[tuple[int, Member]] = []
            while self._planned < len(self):
                member = parse(self.path(self._planned))
                if member and member.remote:
                    if neighbours and not _adjoins(neighbours[0][1], neighbours[-1][1], member):
                        break
                    neighbours.append((self._planned, member))
                elif neighbours:
                    break
                self._planned += 1
            if neighbours:
                self._ask(neighbours)

    def _ask(self, neighbours: list[tuple[int, Member]]) -> None:
        from transfer.data.shards.remote import MAX_CONNECTIONS

        self._pool = self._pool or ThreadPoolExecutor(MAX_CONNECTIONS)
        start, end = neighbours[0][1].span[0], neighbours[-1][1].span[1]
        request = self._pool.submit(fetch, neighbours[0][1], start, end - start)
        self._unused[request] = len(neighbours)
        for place, _ in neighbours:
            self._waiting[place] = start, request


def _adjoins(first: Member, last: Member, member: Member) -> bool:
    """Return whether `member` is fetched with its neighbours from `first` to `last`."""
    start, end = member.span
    near = member.shard == first.shard and 0 <= start - last.span[1] <= GAP
    return near and end - first.span[0] <= SPAN
