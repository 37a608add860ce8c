from pathlib import Path

from transfer.disk_cache import CacheEntry
from transfer.report.console.cache_text import cache_text


def test_kept() -> None:
    trunk = {"backbone": "resnet18", "stage": "layer3", "precision": "float16", "view": None}
    drawn = {"backbone": "resnet18", "stage": "pooled features", "precision": "float32", "view": {"number": 2}}
    shelves = [
        CacheEntry("trunk", trunk, 1200, 3_500_000, 0.0, Path()),
        CacheEntry("trunk", drawn, 4, 500_000, 0.0, Path()),
        CacheEntry("inspection", {}, 7, 0, 0.0, Path()),
    ]
    lines = cache_text(shelves).splitlines()
    assert lines[0].split() == ["cached", "precision", "images", "MB", "last", "used"]
    assert lines[1].split()[:6] == ["resnet18", "to", "layer3", "float16", "1,200", "3.5"]
    assert lines[2].startswith("resnet18 to pooled features, view 2")
    assert lines[3].split()[:3] == ["inspection", "7", "0.0"]
    assert lines[-1].split() == ["total", "4.0"]
