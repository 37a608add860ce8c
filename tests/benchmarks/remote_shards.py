"""Remote shards: seconds to index a shard on a local web server, images per second read in random order, peak memory.

    python tests/benchmarks/remote_shards.py [--images 4000] [--bytes 20000] [--runs 5]

A server in another process serves one tar of random bytes. Each run indexes it without a cache, then reads all images
in random order and once in the order of the shard.
"""

import argparse
import io
import os
import resource
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np

from transfer.data.shards.address import Member
from transfer.data.shards.index import read_index
from transfer.data.shards.prefetch import Contents

SERVER = """
import http.server, os, re, sys
class Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        path = self.translate_path(self.path)
        size = os.path.getsize(path)
        first, last = map(int, re.fullmatch(r"bytes=(\\d+)-(\\d+)", self.headers["Range"]).groups())
        last = min(last, size - 1)
        with open(path, "rb") as file:
            file.seek(first)
            body = file.read(last - first + 1)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"1"')
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--bytes", type=int, default=20_000)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(Path(folder) / "s.tar", "w") as tar:
            for i in range(options.images):
                info = tarfile.TarInfo(f"{i % 10}/{i:06}.jpg")
                info.size = options.bytes
                tar.addfile(info, io.BytesIO(rng.bytes(options.bytes)))
        server = subprocess.Popen([sys.executable, "-c", SERVER], cwd=folder, stdout=subprocess.PIPE, text=True)
        assert server.stdout
        url = f"http://127.0.0.1:{server.stdout.readline().strip()}/s.tar"
        seconds: dict[str, list[float]] = {"index": [], "random": [], "in order": []}
        try:
            for run in range(options.runs):
                os.environ["TRANSFER_CACHE"] = f"{folder}/cache{run}"  # indexed again each time
                started = time.perf_counter()
                index = read_index(url)
                seconds["index"].append(time.perf_counter() - started)
                paths = np.array([str(Member(index.shard, *image[:3])) for image in index.images])
                for name, order in (("random", rng.permutation(len(paths))), ("in order", np.arange(len(paths)))):
                    contents, started = Contents(paths, order), time.perf_counter()
                    total = sum(len(contents[i]) for i in range(len(paths)))
                    seconds[name].append(time.perf_counter() - started)
                    contents.close()
                    assert total == options.images * options.bytes
        finally:
            server.kill()
    for name, values in seconds.items():
        rate = options.images / statistics.median(values)
        print(f"{name:10} {statistics.median(values):7.3f} s (median of {options.runs}), {rate:,.0f} images/s")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
