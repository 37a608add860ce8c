"""Peak memory of filling the trunk cache for 1,000, 4,000 and 16,000 images.

python tests/benchmarks/memory.py [--images N ...] [--policy P]

Each size runs in its own process. Images of Office-31 are repeated with a number appended, so that all are misses.
"""

import argparse
import hashlib
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import machine
import numpy as np

from transfer import backbones, freeze
from transfer.data.sets.load import load_table
from transfer.disk_cache import DiskCache
from transfer.feature_cache import TrunkCache
from transfer.heads.heads import Heads
from transfer.model import TransferModel


def fill(images: int, backbone_name: str, policy: str) -> float:
    """Fill an empty cache; return this process's peak memory in MiB."""
    table = load_table("office31")
    backbone = backbones.load(backbone_name)
    model = TransferModel(backbone, Heads([], backbone.width)).eval()
    model.freeze(freeze.plan(policy, backbone).phases[0])
    with tempfile.TemporaryDirectory() as folder:
        paths, digests = [], []
        for row, path in enumerate(np.resize(table.paths, images)):
            paths.append(f"{folder}/{row}{Path(path).suffix}")
            content = Path(path).read_bytes() + row.to_bytes(4, "little")  # bytes after the end of a JPEG are ignored
            Path(paths[-1]).write_bytes(content)
            digests.append(hashlib.sha256(content).hexdigest())
        TrunkCache(disk_cache=DiskCache(Path(folder) / "cache")).feed(
            model, np.array(paths), np.array(digests), batch_size=64
        ).prepare(np.arange(images))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def main() -> None:
    """Print the table; with --inside, the peak of this process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 4000, 16000])
    parser.add_argument("--policy", default="linear_probe")
    parser.add_argument("--backbone", default="mobilenetv2_100")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        print(fill(options.images[0], options.backbone, options.policy))
        return
    peaks = []
    for images in options.images:
        words = ["--inside", "--images", str(images), "--policy", options.policy, "--backbone", options.backbone]
        done = subprocess.run([sys.executable, __file__, *words], check=True, capture_output=True, text=True)
        peaks.append(float(done.stdout.split()[-1]))
    print(
        machine.describe(),
        f"\n{options.backbone}, {options.policy}, n = {', '.join(map(str, options.images))}",
        sep="",
    )
    rows = [[str(n), f"{peak:.0f}", f"{peak / peaks[0]:.2f}"] for n, peak in zip(options.images, peaks, strict=True)]
    print(machine.format_table([["images", "peak MiB", "ratio to first"], *rows]))


if __name__ == "__main__":
    main()
