"""Counts and times of requests, in the text format of Prometheus (version 0.0.4).

Written by hand: the format is a few lines, and the official client would be one more package to install.
"""

import threading
from collections import Counter
from pathlib import Path

SECONDS = (0.01, 0.025, 0.05, 0.08, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # upper bounds of the times of requests
SIZES = (1, 2, 4, 8, 16, 32, 64)  # upper bounds of the sizes of batches
_PAGE_BYTES = 4096


class Histogram:
    """How many values are no larger than each of `bounds`; not thread-safe by itself."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds, self.counts, self.total, self.number = bounds, [0] * len(bounds), 0.0, 0

    def add(self, value: float) -> None:
        """Count a value."""
        self.total += value
        self.number += 1
        for place, bound in enumerate(self.bounds):
            self.counts[place] += value <= bound

    def format_lines(self, name: str, labels: str = "") -> list[str]:
        """Return its lines; `labels` are further ones, such as ``path="/predict"``."""
        before = f"{labels}," if labels else ""
        buckets = [
            f'{name}_bucket{{{before}le="{bound:g}"}} {n}' for bound, n in zip(self.bounds, self.counts, strict=True)
        ]
        after = f"{{{labels}}}" if labels else ""
        last = f'{name}_bucket{{{before}le="+Inf"}} {self.number}'
        return [*buckets, last, f"{name}_sum{after} {self.total:g}", f"{name}_count{after} {self.number}"]


class ServerMetrics:
    """What the server counts; every method can be called from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[tuple[str, int]] = Counter()
        self._seconds: dict[str, Histogram] = {}
        self._batches = Histogram(SIZES)
        self._images: Counter[str] = Counter()

    def count_request(self, path: str, status: int, seconds: float) -> None:
        """Count a request that was answered; `path` is one of a fixed number of names."""
        with self._lock:
            self._requests[path, status] += 1
            self._seconds.setdefault(path, Histogram(SECONDS)).add(seconds)

    def count_batch(self, images: int) -> None:
        """Count a batch that the model computes."""
        with self._lock:
            self._batches.add(images)

    def count_images(self, outcome: str, number: int = 1) -> None:
        """Count images by what became of them: predicted, refused, corrected."""
        with self._lock:
            self._images[outcome] += number

    def format_text(self, waiting: int, capacity: int) -> str:
        """Return all of it, with the images that are `waiting` now."""
        with self._lock:
            lines = [
                "# HELP transfer_requests_total Requests answered, by path and HTTP status.",
                "# TYPE transfer_requests_total counter",
                *(
                    f'transfer_requests_total{{path="{path}",status="{status}"}} {n}'
                    for (path, status), n in sorted(self._requests.items())
                ),
                "# HELP transfer_request_seconds Time from the first byte of a request to its answer.",
                "# TYPE transfer_request_seconds histogram",
                *(
                    line
                    for path, seconds in sorted(self._seconds.items())
                    for line in seconds.format_lines("transfer_request_seconds", f'path="{path}"')
                ),
                "# HELP transfer_images_total Images by what became of them.",
                "# TYPE transfer_images_total counter",
                *(f'transfer_images_total{{outcome="{name}"}} {n}' for name, n in sorted(self._images.items())),
                "# HELP transfer_batch_images Images that the model computed together.",
                "# TYPE transfer_batch_images histogram",
                *self._batches.format_lines("transfer_batch_images"),
                "# HELP transfer_queue_images Images that wait for the model.",
                "# TYPE transfer_queue_images gauge",
                f"transfer_queue_images {waiting}",
                "# HELP transfer_queue_capacity Images that may wait.",
                "# TYPE transfer_queue_capacity gauge",
                f"transfer_queue_capacity {capacity}",
            ]
        if resident := read_resident_bytes():
            lines += [
                "# HELP process_resident_memory_bytes Memory of the server.",
                "# TYPE process_resident_memory_bytes gauge",
                f"process_resident_memory_bytes {resident}",
            ]
        return "\n".join(lines) + "\n"


def read_resident_bytes() -> int:
    """Return the memory of this process in bytes; 0 where the system does not say it in /proc."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE_BYTES
    except (OSError, ValueError, IndexError):
        return 0
