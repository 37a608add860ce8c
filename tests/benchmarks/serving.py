"""Latency and throughput of `transfer serve`, and its memory over many requests.

python tests/benchmarks/serving.py RUN IMAGES [--seconds N] [--clients N] [--requests N]

A process of the command serves RUN; this one sends the photographs in the folder IMAGES. First one client, one image at
a time; then several clients at once for --seconds; then further requests up to --requests in all. The load of the
machine, before and after, is printed beside the figures: other processes slow both sides.
"""

import argparse
import http.client
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import machine


def parse() -> argparse.Namespace:
    """Return the options."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("run", type=Path)
    options.add_argument("images", type=Path)
    options.add_argument("--seconds", type=float, default=15, help="seconds of each part")
    options.add_argument("--clients", type=int, default=16)
    options.add_argument("--requests", type=int, default=0, help="requests after which memory is read once more")
    return options.parse_args()


class Server:
    """The command as a process."""

    def __init__(self, run: Path) -> None:
        command = [sys.executable, "-u", "-m", "transfer", "serve", str(run), "--port", "0"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert self.process.stdout
        for line in self.process.stdout:
            if found := re.search(r"http://127\.0\.0\.1:(\d+)/", line):
                self.port = int(found[1])
                break
        while self.about()["runs"][0]["training_images"]["state"] == "loading":
            time.sleep(0.2)

    def connect(self) -> http.client.HTTPConnection:
        """Return a connection that waits for the server to start."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def about(self) -> dict:
        """Return what the server says of itself."""
        for _ in range(600):
            try:
                connection = self.connect()
                connection.request("GET", "/about")
                return json.load(connection.getresponse())
            except OSError:
                time.sleep(0.1)
        raise SystemExit("the server does not start")

    def read_memory(self) -> float:
        """Return the memory of the process in MiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]

    def read_processor_seconds(self) -> float:
        """Return the processor time of the process."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> int:
        """Stop the process as a user does; return its exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)


def send(server: Server, contents: list[bytes], until: float, most: int = 10**9, first: int = 0) -> tuple[list, list]:
    """Send images one after the other until a time; return seconds of each answer, and statuses of others."""
    connection, seconds, other = server.connect(), [], []
    place = first
    while time.perf_counter() < until and len(seconds) < most:
        started = time.perf_counter()
        connection.request("POST", "/predict", contents[place % len(contents)])
        answer = connection.getresponse()
        body = answer.read()
        place += 1
        if answer.status == 200 and b"prediction" in body:
            seconds.append(time.perf_counter() - started)
        else:
            other.append(answer.status)
            time.sleep(float(answer.headers.get("Retry-After", 0)))
    return seconds, other


def send_together(server: Server, contents: list[bytes], options: argparse.Namespace, most: int) -> tuple[list, list]:
    """Send images by several clients at once; return what :func:`send` does, of all of them."""
    results: list[tuple[list, list]] = []
    until = time.perf_counter() + options.seconds if most == 10**9 else time.perf_counter() + 3600

    def work(place: int) -> None:
        results.append(send(server, contents, until, most, first=place * 7))

    threads = [threading.Thread(target=work, args=(place,)) for place in range(options.clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == options.clients, "a client failed"
    return [value for seconds, _ in results for value in seconds], [value for _, other in results for value in other]


def main() -> None:
    """Print the table."""
    options = parse()
    files = sorted(path for path in options.images.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    contents = [path.read_bytes() for path in files[:: max(1, len(files) // 200)]]
    load = os.getloadavg()[0]
    server = Server(options.run)
    rows = [["clients", "requests", "p50 ms", "p95 ms", "images/s", "not answered", "processor ms", "MiB"]]
    sent = 0

    def measure(clients: int, result: tuple[list, list], seconds: float, used: float) -> None:
        nonlocal sent
        times, other = result
        sent += len(times) + len(other)
        quantiles = statistics.quantiles(times, n=20)
        rate, memory = f"{len(times) / seconds:.1f}", f"{server.read_memory():.0f}"
        middle, high = f"{1000 * statistics.median(times):.0f}", f"{1000 * quantiles[18]:.0f}"
        processor = f"{1000 * used / len(times):.0f}"
        rows.append([str(clients), str(len(times)), middle, high, rate, str(len(other)), processor, memory])

    send(server, contents, time.perf_counter() + 60, most=20)  # warm
    before = server.read_memory()
    for clients, call in (
        (1, lambda: send(server, contents, time.perf_counter() + options.seconds)),
        (options.clients, lambda: send_together(server, contents, options, 10**9)),
        (
            options.clients,
            lambda: send_together(server, contents, options, -(-(options.requests - sent) // options.clients)),
        ),
    ):
        if len(rows) == 3 and options.requests <= sent:
            continue
        started, used = time.perf_counter(), server.read_processor_seconds()
        result = call()
        measure(clients, result, time.perf_counter() - started, server.read_processor_seconds() - used)
    after = server.read_memory()
    code = server.stop()
    print(machine.describe())
    print(f"{options.run.name}, {len(contents)} images; load average {load:.1f} before, {os.getloadavg()[0]:.1f} after")
    print(machine.format_table(rows))
    print(f"memory {before:.0f} MiB after 20 requests, {after:.0f} MiB after {sent + 20:,}; exit code {code}")


if __name__ == "__main__":
    main()
