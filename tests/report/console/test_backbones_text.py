from dataclasses import replace
from typing import Any

from transfer.backbones.catalogue import CatalogueRow
from transfer.backbones.shortlist import ShortlistRow
from transfer.report.console.backbones_text import backbone_lines, shortlist_lines


def test_backbone_lines_come_one_by_one() -> None:
    asked = []

    def rows() -> Any:
        for name, parameters, licence in (("resnet18", 11176512, "MIT"), ("torchvision:squeezenet1_1", 722496, "")):
            asked.append(name)
            yield CatalogueRow(name, "timm", parameters, 512, 5, licence, "hub")

    lines = backbone_lines(rows())
    assert next(lines).split() == ["backbone", "parameters", "width", "stages", "licence", "weights"]
    assert asked == []
    assert next(lines).split() == ["resnet18", "11,176,512", "512", "5", "MIT", "hub"]
    assert asked == ["resnet18"]
    assert [line.split() for line in lines] == [
        ["torchvision:squeezenet1_1", "722,496", "512", "5", "not", "stated", "hub"]
    ]


def test_shortlist_lines_come_one_by_one() -> None:
    asked = []

    def rows() -> Any:
        first = CatalogueRow("resnet18.a1_in1k", "timm", 11176512, 512, 5, "Apache-2.0", "store")
        for row in (
            ShortlistRow(first, 73.158, 288, 224, 1234.56, True),
            ShortlistRow(first, 80.858, 224, 224, 49.6, False),
            ShortlistRow(replace(first, licence=""), None, None, 256, 4.25, False),
        ):
            asked.append(row)
            yield row

    lines = shortlist_lines(rows())
    assert next(lines).split()[-5:] == ["parameters", "images/s", "size", "licence", "weights"]
    assert asked == []
    own = ["11,176,512", "1,235", "224", "Apache-2.0", "store"]
    assert next(lines).split() == ["resnet18.a1_in1k", "73.2", "(288)", *own]
    assert next(lines).split()[1:4] == ["80.9", "11,176,512", "~50"]
    assert next(lines).split()[1:] == ["-", "11,176,512", "~4.2", "256", "not", "stated", "store"]
    assert "'*'" in list(lines)[-1]
