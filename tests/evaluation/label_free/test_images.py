import numpy as np
import pytest
import torch

from transfer.errors import TransferError
from transfer.evaluation.label_free.images import expect_accuracy_of_files, expect_accuracy_of_rows
from transfer.feature_cache import TrunkCache
from transfer.training.train import train


@pytest.fixture
def trained(config):
    return train(config())


def test_rows_of_a_feed_and_files_say_the_same_as_the_reference(trained, images, digests):
    model, references = trained.models[""], trained.uncertainty.accuracy
    assert references.keys() == {"object"}  # not the domain: another one is no class of the head
    feed = TrunkCache().feed(model, images.paths, digests, batch_size=16)
    rows = np.arange(5, 40)
    found = expect_accuracy_of_rows(model, feed, {"object": rows}, references)["object"]
    assert found.n == 35
    files = expect_accuracy_of_files(trained.models, images.paths[rows].tolist(), references, "object")
    assert files.accuracy == pytest.approx(found.accuracy, abs=0.03)
    assert files.held_out == found.held_out
    assert expect_accuracy_of_rows(model, feed, {"object": rows[:9]}, references) == {}
    assert expect_accuracy_of_rows(model, feed, {}, references) == {}


def test_what_is_missing_is_said(trained, images):
    paths, references = images.paths.tolist(), trained.uncertainty.accuracy
    with pytest.raises(TransferError, match="9 images: an expected accuracy needs 10 or more"):
        expect_accuracy_of_files(trained.models, paths[:9], references, "object")
    for given, head in (({}, "object"), (references, "domain")):
        with pytest.raises(TransferError, match="no expected accuracy: this needs a run"):
            expect_accuracy_of_files(trained.models, paths, given, head)
    with torch.no_grad():
        next(trained.models[""].heads.parameters()).fill_(torch.inf)
    with pytest.raises(TransferError, match="NaN or infinite"):
        expect_accuracy_of_files(trained.models, paths, references, "object")
