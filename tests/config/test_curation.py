from pathlib import Path

import pytest

from transfer.config.curation import InspectConfig, PickConfig, ReviewConfig
from transfer.config.shared import ImagesConfig
from transfer.errors import TransferError


@pytest.mark.parametrize("kind", [InspectConfig, ReviewConfig])
def test_a_bad_image_stops_neither_by_default(kind):
    assert kind().images.on_bad_image == "skip"
    assert kind(ImagesConfig("x")).images.on_bad_image == "refuse"


def test_a_review_has_one_choice_of_images():
    with pytest.raises(TransferError, match="only one of them"):
        ReviewConfig(picks="a.csv", class_name="b")
    with pytest.raises(TransferError, match="--port"):
        ReviewConfig(port=70000)


def test_the_file_of_picks_is_a_csv():
    assert PickConfig(out="a/picks.CSV").out == Path("a/picks.CSV")
    with pytest.raises(TransferError, match=r"--out runs/a: it must be a CSV file, such as a\.csv"):
        PickConfig(out="runs/a")
