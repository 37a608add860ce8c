"""One thread that runs the model, with a bounded queue; images that wait are predicted together."""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

log = logging.getLogger(__name__)

BatchCall = Callable[[list[Any]], Sequence[Any]]
"""Computes the results of several items together, in their order."""


class QueueFull(Exception):
    """There is no room for more items; `waiting` are in the queue."""

    def __init__(self, waiting: int) -> None:
        super().__init__(f"{waiting} images are waiting")
        self.waiting = waiting


class _Job(NamedTuple):
    call: BatchCall
    item: Any
    future: "Future[Any]"


class ModelWorker:
    """Runs calls one after the other in a thread of its own, since a network's hooks allow only one at a time.

    Parameters
    ----------
    capacity : int
        Items that may wait.
    most : int
        Items of the same call that are joined into one batch.
    on_batch : callable, optional
        Called with the number of items of each batch.
    """

    def __init__(self, capacity: int, most: int, on_batch: Callable[[int], None] | None = None) -> None:
        self.capacity, self.most, self._on_batch = capacity, most, on_batch
        self._waiting: deque[_Job] = deque()
        self._idle: deque[Iterator[Any]] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="model", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Number of items in the queue."""
        return len(self._waiting)

    def submit(self, call: BatchCall, items: Sequence[Any]) -> list["Future[Any]"]:
        """Put `items` into the queue, all or none; return their results to come.

        Raises
        ------
        QueueFull
            They do not fit, or the worker is closing.
        """
        jobs = [_Job(call, item, Future()) for item in items]
        with self._changed:
            if self._closing or len(self._waiting) + len(jobs) > self.capacity:
                raise QueueFull(len(self._waiting))
            self._waiting.extend(jobs)
            self._changed.notify()
        return [job.future for job in jobs]

    def work_when_idle(self, steps: Iterator[Any]) -> None:
        """Advance `steps` to its end whenever no item waits, a step at a time."""
        with self._changed:
            self._idle.append(steps)
            self._changed.notify()

    def close(self, *, finish: bool = True) -> None:
        """Finish what waits, or the present batch alone, refuse more, and end the thread."""
        with self._changed:
            self._closing = True
            if not finish:
                for job in self._waiting:
                    job.future.cancel()
                self._waiting.clear()
            self._idle.clear()
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not (self._waiting or self._idle or self._closing):
                    self._changed.wait()
                batch = self._take()
                steps = self._idle[0] if self._idle and not batch else None
                if not batch and steps is None:
                    return
            if batch:
                self._compute(batch)
            elif steps is not None:
                self._step(steps)

    def _take(self) -> list[_Job]:
        """Remove the first job and those of the same call from the queue, and return those that are still wanted."""
        if not self._waiting:
            return []
        call = self._waiting[0].call
        taken: list[_Job] = []
        others: list[_Job] = []
        for job in self._waiting:
            (taken if job.call == call and len(taken) < self.most else others).append(job)
        self._waiting = deque(others)
        return taken

    def _compute(self, batch: list[_Job]) -> None:
        jobs = [job for job in batch if job.future.set_running_or_notify_cancel()]  # a client that left needs nothing
        if not jobs:
            return
        if self._on_batch:
            self._on_batch(len(jobs))
        try:
            results = jobs[0].call([job.item for job in jobs])
        except Exception as error:
            if len(jobs) == 1:
                jobs[0].future.set_exception(error)
                return
            self._compute_singly(jobs)
            return
        for job, result in zip(jobs, results, strict=True):
            job.future.set_result(result)

    def _compute_singly(self, jobs: list[_Job]) -> None:
        """Compute each item alone, so that one that fails spoils no other."""
        for job in jobs:
            try:
                job.future.set_result(job.call([job.item])[0])
            except Exception as error:
                job.future.set_exception(error)

    def _step(self, steps: Iterator[Any]) -> None:
        try:
            next(steps)
            return
        except StopIteration:
            pass
        except Exception:
            log.exception("work in the background failed")
        with self._changed:
            if self._idle and self._idle[0] is steps:
                self._idle.popleft()
